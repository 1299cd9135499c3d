"""What SGLang is asked for, on the CPU and in a container, and what is refused before anything starts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from labs_helpers import machine
from labs_helpers.engines import install, registry, sglang, sglang_container
from labs_helpers.engines.base import ModelSpec
from labs_helpers.errors import LabsError

QWEN = ModelSpec("qwen3-8b", "Qwen/Qwen3-8B", "fp8")


@pytest.fixture
def here(monkeypatch) -> machine.Machine:
    """This machine without its GPU, if it has one."""
    found = dataclasses.replace(machine.detect(), gpu=None)
    monkeypatch.setattr(machine, "detect", lambda: found)
    return found


@pytest.fixture
def beside_a_gpu(monkeypatch) -> machine.Machine:
    found = SimpleNamespace(arch="x86_64", gpu=SimpleNamespace(name="NVIDIA GB10"))
    monkeypatch.setattr(machine, "detect", lambda: found)
    return found


@pytest.fixture
def model(tmp_path) -> ModelSpec:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return ModelSpec("course", str(folder), "fp32")


@pytest.fixture
def launch(here, model, monkeypatch):
    """The description of a server with these options, as if SGLang were installed."""
    monkeypatch.setattr(install, "python", lambda name: Path("/engines") / name / "bin" / "python")
    return lambda **options: sglang.SGLang().launch(model, 30123, **options)


def option(argv, name: str) -> str:
    return argv[list(argv).index(name) + 1]


def test_the_server_is_the_unmodified_one_on_the_loopback_with_its_witnesses_on(launch, model):
    spec = launch()
    assert spec.argv[1:3] == ("-m", "sglang.launch_server")
    assert option(spec.argv, "--host") == "127.0.0.1" and option(spec.argv, "--port") == "30123"
    assert option(spec.argv, "--model-path") == model.location
    assert option(spec.argv, "--served-model-name") == "course"
    assert option(spec.argv, "--dtype") == "float32"
    assert {"--enable-metrics", "--enable-cache-report", "--constrained-json-disable-any-whitespace"} < set(spec.argv)
    assert "--trust-remote-code" not in spec.argv


def test_the_kernels_are_on_the_path_of_the_server_only_and_register_at_sglangs_own_entry_points(launch):
    kernels = Path(launch().env["PYTHONPATH"])
    assert (kernels / "sgl_kernel" / "__init__.py").is_file()
    assert "cpu_kernels" not in os.environ.get("PYTHONPATH", "")
    from importlib.metadata import distributions

    (plugin,) = distributions(path=[str(kernels)])
    found = {(point.group, point.value) for point in plugin.entry_points}
    assert found == {
        ("sglang.srt.platforms", "labs_sglang_plugin:activate"),
        ("sglang.srt.plugins", "labs_sglang_plugin:register"),
    }
    assert (kernels / launch().env["SGLANG_EXTERNAL_MODEL_PACKAGE"] / "llama.py").is_file()
    assert launch(threads=1).env["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("given", "argument", "value"),
    [
        ({"max_total_tokens": 2048}, "--max-total-tokens", "2048"),
        ({"page_size": 16}, "--page-size", "16"),
        ({"attention_backend": "torch_native"}, "--attention-backend", "torch_native"),
        ({"memory_fraction": 0.5}, "--mem-fraction-static", "0.5"),
        ({"max_running_requests": 4}, "--max-running-requests", "4"),
        ({"chunked_prefill_size": 256}, "--chunked-prefill-size", "256"),
        ({"schedule_policy": "lpm"}, "--schedule-policy", "lpm"),
        ({"eviction_policy": "lfu"}, "--radix-eviction-policy", "lfu"),
        ({"grammar_backend": "llguidance"}, "--grammar-backend", "llguidance"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "--kv-cache-dtype", "fp8_e5m2"),
        ({"max_model_len": 512}, "--context-length", "512"),
    ],
)
def test_an_option_becomes_the_argument_of_its_name(launch, given, argument, value):
    assert option(launch(**given).argv, argument) == value


def test_the_controls_are_options(launch):
    assert "--disable-radix-cache" not in launch().argv
    assert "--disable-radix-cache" in launch(radix_cache=False).argv
    assert "--constrained-json-disable-any-whitespace" not in launch(json_any_whitespace=True).argv
    assert launch(extra_args=["--log-level", "debug"]).argv[-2:] == ("--log-level", "debug")


def test_speculation_is_passed_on_and_leaves_the_rest_to_sglang(launch, model):
    argv = launch(speculative={"algorithm": "STANDALONE", "draft_model_path": model.location, "num_steps": 3}).argv
    assert option(argv, "--speculative-algorithm") == "STANDALONE"
    assert option(argv, "--speculative-draft-model-path") == model.location
    assert option(argv, "--speculative-num-steps") == "3"
    assert "--speculative-eagle-topk" not in argv


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"radix": False}, "no option 'radix'; did you mean 'radix_cache'"),
        ({"radix_cache": "off"}, "cannot take radix_cache='off'"),
        ({"memory_fraction": 1.5}, "cannot take memory_fraction=1.5"),
        ({"page_size": 0}, "cannot take page_size=0"),
        ({"attention_backend": "triton"}, "cannot take attention_backend='triton'"),
        ({"speculative": {"algorithm": "MEDUSA"}}, "cannot take speculative="),
        ({"speculative": {"algorithm": "EAGLE3"}}, "EAGLE3 needs draft_model_path"),
        ({"speculative": {"algorithm": "NGRAM", "draft_model_path": "x"}}, "takes no draft_model_path"),
        ({"speculative": {"algorithm": "EAGLE3", "draft_model_path": "/nowhere"}}, "the draft model /nowhere is not"),
    ],
)
def test_what_it_cannot_take_is_told_before_anything_starts(launch, given, words):
    with pytest.raises(LabsError) as caught:
        launch(**given)
    assert words in str(caught.value)


def test_n_gram_speculation_without_a_compiler_names_the_package(launch, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(LabsError, match="no C\\+\\+ compiler") as caught:
        launch(speculative={"algorithm": "NGRAM"})
    assert "g++" in caught.value.remedy


def test_beside_a_gpu_it_is_neither_installed_nor_launched(beside_a_gpu, model):
    engine = registry.get("sglang")
    found = engine.availability(beside_a_gpu)
    assert not found.ok and "container" in found.reason and found.remedy
    assert not install.can_install("sglang", beside_a_gpu)
    with pytest.raises(LabsError, match="cannot be installed here: beside a GPU"):
        install.install("sglang", print)
    with pytest.raises(LabsError, match="cannot run here: beside a GPU"):
        engine.launch(model, 30123)


def test_on_a_machine_without_a_gpu_what_is_missing_is_the_installation(here):
    found = registry.get("sglang").availability(here)
    assert not found.ok and "./labs engines install sglang" in found.remedy


def test_counters_are_sglangs_own_names(monkeypatch):
    page = {
        "sglang:prompt_tokens_total": 50.0,
        "sglang:generation_tokens_total": 7.0,
        "sglang:num_requests_total": 2.0,
        "sglang:time_to_first_token_seconds_sum": 1.5,
        "sglang:e2e_request_latency_seconds_sum": 4.0,
    }

    async def scrape(url: str) -> dict[str, float]:
        return page

    monkeypatch.setattr(sglang, "scrape", scrape)
    import asyncio

    read = asyncio.run(sglang.SGLang().counters("http://127.0.0.1:1"))
    assert (read.prompt_tokens, read.generation_tokens, read.requests) == (50, 7, 2)
    assert (read.prefill_seconds, read.decode_seconds) == (1.5, 2.5)
    assert read.cached_tokens == 0, "SGLang shows the counter only after the first hit"


def test_the_container_is_described_whole():
    spec = sglang_container.container(QWEN, huggingface=Path("/cache/hub"), quantization="modelopt_fp4")
    argv = list(spec.docker_argv(40123))
    assert option(argv, "--gpus") == "all" and "--ipc=host" in argv
    assert option(argv, "--publish") == "127.0.0.1:40123:30000", "reachable from this machine only"
    assert option(argv, "--volume") == "/cache/hub:/root/.cache/huggingface"
    assert option(argv, "--env") == "HF_TOKEN", "by name: the value stands in no command line"
    inside = argv[argv.index(sglang_container.IMAGE) + 1 :]
    assert inside == list(spec.argv)
    assert option(inside, "--model-path") == "Qwen/Qwen3-8B" and option(inside, "--port") == "30000"
    assert option(inside, "--attention-backend") == "triton" and option(inside, "--mem-fraction-static") == "0.75"
    assert "--disable-cuda-graph" not in inside and "--trust-remote-code" not in inside


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cuda_graph": False}, "did you mean 'cuda_graphs'"),
        ({"memory_fraction": 0.95}, "cannot take memory_fraction=0.95"),
        ({"attention_backend": "intel_amx"}, "cannot take attention_backend='intel_amx'"),
    ],
)
def test_a_container_with_a_wrong_option_is_refused(given, words):
    with pytest.raises(LabsError) as caught:
        sglang_container.container(QWEN, **given)
    assert words in str(caught.value)


PARSE = """
import json, sys
from sglang.srt.server_args import prepare_server_args
given = prepare_server_args(json.loads(sys.argv[1]))
print(json.dumps({name: getattr(given, name) for name in json.loads(sys.argv[2])}))
"""

DRAFT = "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"
ASKED = {
    "radix_cache": False,
    "page_size": 64,
    "memory_fraction": 0.6,
    "max_total_tokens": 100_000,
    "attention_backend": "flashinfer",
    "cuda_graphs": True,
    "cuda_graph_max_batch": 16,
    "quantization": "modelopt_fp4",
    "chunked_prefill_size": 2048,
    "schedule_policy": "lpm",
    "eviction_policy": "lfu",
    "grammar_backend": "llguidance",
    "kv_cache_dtype": "fp8_e4m3",
    "speculative": {
        "algorithm": "EAGLE3",
        "draft_model_path": DRAFT,
        "num_steps": 3,
        "eagle_topk": 4,
        "num_draft_tokens": 16,
    },
}
UNDERSTOOD = {
    "model_path": "Qwen/Qwen3-8B",
    "served_model_name": "qwen3-8b",
    "port": 30000,
    "context_length": 4096,
    "disable_radix_cache": True,
    "page_size": 64,
    "mem_fraction_static": 0.6,
    "max_total_tokens": 100_000,
    "attention_backend": "flashinfer",
    "disable_cuda_graph": False,
    "cuda_graph_max_bs_decode": 16,
    "quantization": "modelopt_fp4",
    "chunked_prefill_size": 2048,
    "schedule_policy": "lpm",
    "radix_eviction_policy": "lfu",
    "grammar_backend": "llguidance",
    "kv_cache_dtype": "fp8_e4m3",
    "enable_metrics": True,
    "enable_cache_report": True,
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": DRAFT,
    "speculative_num_steps": 3,
    "speculative_eagle_topk": 4,
    "speculative_num_draft_tokens": 16,
}
NGRAM = {"algorithm": "NGRAM", "num_draft_tokens": 8, "ngram_max_trie_depth": 12, "ngram_match_type": "PROB"}


@pytest.mark.engine("sglang")
@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (ASKED, UNDERSTOOD),
        ({}, {"attention_backend": "triton", "mem_fraction_static": 0.75, "disable_cuda_graph": False}),
        (
            {"cuda_graphs": False, "memory_fraction": None, "speculative": NGRAM},
            {
                "disable_cuda_graph": True,
                "mem_fraction_static": None,
                "speculative_algorithm": "NGRAM",
                "speculative_num_draft_tokens": 8,
                "speculative_ngram_max_trie_depth": 12,
                "speculative_ngram_match_type": "PROB",
            },
        ),
    ],
)
def test_sglangs_own_parser_understands_the_containers_arguments_as_they_are_meant(given, understood):
    command = sglang_container.container(QWEN, **given).argv
    assert command[:3] == ("python3", "-m", "sglang.launch_server")
    environment = {**os.environ, **sglang.SGLang().environment(1)}
    done = subprocess.run(
        [install.python("sglang"), "-c", PARSE, json.dumps(command[3:]), json.dumps(list(understood))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == understood
