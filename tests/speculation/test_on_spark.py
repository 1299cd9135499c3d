"""Commands for a machine that tests do not have: the engines' own parsers understand them as they are meant."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from labs_helpers.engines import install, sglang
from labs_helpers.errors import LabsError
from labs_helpers.speculation.on_spark import PUBLIC, on_spark

VLLM_PARSE = """
import json, sys
from dataclasses import fields
from typing import get_args
from vllm.config.speculative import SpeculativeConfig, SpeculativeMethod
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

def flat(kind):
    return [name for part in get_args(kind) for name in (flat(part) if get_args(part) else [part])]

parser, found = make_arg_parser(FlexibleArgumentParser()), []
for argv in json.loads(sys.argv[1]):
    args = parser.parse_args(argv)
    asked = AsyncEngineArgs.from_cli_args(args)
    unknown = set(asked.speculative_config) - {field.name for field in fields(SpeculativeConfig)}
    assert not unknown, unknown
    assert asked.speculative_config["method"] in flat(SpeculativeMethod), flat(SpeculativeMethod)
    found.append([args.model_tag, asked.max_model_len, asked.gpu_memory_utilization, asked.speculative_config])
print(json.dumps(found))
"""
SGLANG_PARSE = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs

parser, found = argparse.ArgumentParser(), []
ServerArgs.add_cli_args(parser)
for argv in json.loads(sys.argv[1]):
    args = vars(parser.parse_args(argv))
    found.append([args[name] for name in ("model_path", "speculative_algorithm", "speculative_draft_model_path",
        "speculative_num_steps", "speculative_eagle_topk", "speculative_num_draft_tokens", "mem_fraction_static")])
print(json.dumps(found))
"""


def parsed(engine, program, commands):
    """What the engine's parser makes of the arguments of all these commands, in one process."""
    settings = sglang.SGLang().environment(1) if engine == "sglang" else {"VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [install.python(engine), "-c", program, json.dumps(commands)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.engine("vllm")
def test_vllms_own_parser_understands_the_commands_as_they_are_meant():
    ours = [public for public in PUBLIC if public.engine == "vllm"]
    assert all(public.argv[:2] == ("vllm", "serve") for public in ours)
    found = parsed("vllm", VLLM_PARSE, [public.argv[2:] for public in ours])
    assert found == [[public.model, 4096, 0.8, public.config] for public in ours]


@pytest.mark.engine("sglang")
def test_sglangs_own_parser_understands_the_commands_as_they_are_meant():
    ours = [public for public in PUBLIC if public.engine == "sglang"]
    assert all(public.argv[:3] == ("python3", "-m", "sglang.launch_server") for public in ours)
    found = parsed("sglang", SGLANG_PARSE, [public.argv[3:] for public in ours])
    assert found == [[public.model, "EAGLE3", public.draft, 3, 4, 16, 0.75] for public in ours]


def test_what_is_printed_is_the_command_that_is_tested():
    for public in PUBLIC:
        shown = "\n".join(line for line in str(public).splitlines() if not line.startswith("#"))
        words = shlex.split(shown.replace("\\\n", " "))
        assert words[:2] == ["docker", "run"]
        assert tuple(words[-len(public.argv) :]) == public.argv


def test_every_method_of_the_labs_has_one_and_others_say_which():
    assert {p.engine for p in on_spark("eagle3")} == {"vllm", "sglang"}
    assert [p.engine for p in on_spark("medusa")] == ["vllm"], "SGLang has no Medusa"
    with pytest.raises(LabsError, match="eagle9"):
        on_spark("eagle9")
