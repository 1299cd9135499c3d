"""vLLM's container for a machine with a GPU: what it is told, and that vLLM's own parser understands it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from labs_helpers.engines import install, vllm_container
from labs_helpers.engines.base import ModelSpec
from labs_helpers.engines.vllm import VLLM
from labs_helpers.errors import LabsError
from labs_helpers.model.spec import shipped_dir

QWEN = ModelSpec("qwen3-8b", "Qwen/Qwen3-8B", "bf16")


def test_cuda_graphs_are_an_experiment_not_a_rule():
    assert "--enforce-eager" not in vllm_container.container(QWEN).argv
    assert "--enforce-eager" in vllm_container.container(QWEN, cuda_graphs=False).argv


def test_it_is_published_on_the_loopback_only_and_passes_the_token_by_name():
    argv = vllm_container.container(QWEN, huggingface=Path("/models")).docker_argv(8123)
    assert argv[argv.index("--publish") + 1] == f"127.0.0.1:8123:{vllm_container.PORT}"
    assert argv[argv.index("--env") + 1] == "HF_TOKEN"
    assert "/models:/root/.cache/huggingface" in argv
    assert argv[argv.index(vllm_container.IMAGE) + 1 :][:3] == ("vllm", "serve", "Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cuda_graph": False}, "did you mean 'cuda_graphs'"),
        ({"memory_fraction": 0.95}, "cannot take memory_fraction=0.95"),
        ({"kv_cache_dtype": "q8_0"}, "cannot take kv_cache_dtype='q8_0'"),
    ],
)
def test_a_container_with_a_wrong_option_is_refused(given, words):
    with pytest.raises(LabsError) as caught:
        vllm_container.container(QWEN, **given)
    assert words in str(caught.value)


PARSE = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
asked, cases = [], json.loads(sys.argv[1])
for argv, names in cases:
    given = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    validate_parsed_serve_args(given)
    given.model = sys.argv[2]  # a folder: the hub is not asked
    AsyncEngineArgs.from_cli_args(given)
    asked.append({name: getattr(given, name) for name in names})
print(json.dumps(asked))
"""

DRAFT = {"method": "eagle3", "model": "AngelSlim/Qwen3-8B_eagle3", "num_speculative_tokens": 3}
CASES = [
    (
        {
            "memory_fraction": 0.7,
            "cuda_graphs": False,
            "prefix_caching": False,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 2048,
            "chunked_prefill": True,
            "block_size": 32,
            "kv_cache_dtype": "fp8",
            "kv_cache_bytes": 2**33,
            "quantization": "modelopt_fp4",
            "speculative": DRAFT,
            "extra_args": ("--seed", "3"),
        },
        {
            "model_tag": "Qwen/Qwen3-8B",
            "served_model_name": ["qwen3-8b"],
            "port": 8000,
            "host": "0.0.0.0",
            "max_model_len": 4096,
            "gpu_memory_utilization": 0.7,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 2048,
            "enable_chunked_prefill": True,
            "block_size": 32,
            "kv_cache_dtype": "fp8",
            "kv_cache_memory_bytes": 2**33,
            "quantization": "modelopt_fp4",
            "speculative_config": DRAFT,
            "seed": 3,
        },
    ),
    (
        {},
        {
            "enforce_eager": False,
            "gpu_memory_utilization": 0.8,
            "enable_prefix_caching": True,
            "enable_prompt_tokens_details": True,
            "kv_cache_dtype": "auto",
            "kv_cache_memory_bytes": None,
            "max_num_seqs": None,
        },
    ),
    ({"chunked_prefill": False, "kv_cache_dtype": "int8_per_token_head"},
     {"enable_chunked_prefill": False, "kv_cache_dtype": "int8_per_token_head"}),
]  # fmt: skip


def test_its_line_for_a_shell_reads_back_as_its_arguments_and_names_no_home():
    spec = vllm_container.container(QWEN, huggingface=Path.home() / "my models")
    line = spec.command_line(8123)
    assert str(Path.home()) + "/my" not in line
    words = [word.replace("~", str(Path.home()), 1) if word[0] == "~" else word for word in shlex.split(line)]
    assert words == list(spec.docker_argv(8123))


@pytest.mark.engine("vllm")
def test_vllms_own_parser_understands_the_containers_arguments_as_they_are_meant():
    """One process for all of them: it takes vLLM ten seconds to come up for a parse."""
    commands = [vllm_container.container(QWEN, **given).argv for given, _ in CASES]
    assert all(command[:2] == ("vllm", "serve") for command in commands)
    asked = [[list(command[2:]), list(meant)] for command, (_, meant) in zip(commands, CASES, strict=True)]
    done = subprocess.run(
        [install.python("vllm"), "-P", "-c", PARSE, json.dumps(asked), str(shipped_dir())],
        env={**os.environ, **VLLM()._environment(1), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [meant for _, meant in CASES]
