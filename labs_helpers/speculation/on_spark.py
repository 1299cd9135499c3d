"""Speculation with public drafts on a DGX Spark: servers as vLLM and SGLang take them. Nothing was measured with these.

Images and flags: NVIDIA/dgx-spark-playbooks; docs.vllm.ai, "Speculative Decoding"; docs.sglang.io, "Speculative
Decoding". A draft is made for one model: each stands here with its own.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from labs_helpers.errors import LabsError

Method = Literal["medusa", "eagle3"]

VLLM_IMAGE = "nvcr.io/nvidia/vllm:26.05-py3"
SGLANG_IMAGE = "lmsysorg/sglang:latest-cu130"
DOCKER = "docker run --rm --gpus all --ipc=host -e HF_TOKEN -v ~/.cache/huggingface:/root/.cache/huggingface"
LLAMA, QWEN, VICUNA = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "lmsys/vicuna-7b-v1.3"


@dataclass(frozen=True)
class PublicDraft:
    """A public draft, the model it was made for, and the engine that serves the two."""

    engine: Literal["vllm", "sglang"]
    method: Method
    model: str
    draft: str
    drafts: int
    """Tokens drafted in a row, the depth of the tree."""
    note: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The server's command inside its container, as a list."""
        if self.engine == "vllm":
            return (
                "vllm", "serve", self.model, "--max-model-len", "4096", "--gpu-memory-utilization", "0.8",
                "--speculative-config", json.dumps(self.config),
            )  # fmt: skip
        return (
            "python3", "-m", "sglang.launch_server", "--model-path", self.model,
            "--host", "0.0.0.0", "--port", "30000",  # noqa: S104 - inside the container; published on 127.0.0.1 only
            "--attention-backend", "triton", "--mem-fraction-static", "0.75", "--enable-metrics",
            "--speculative-algorithm", "EAGLE3", "--speculative-draft-model-path", self.draft,
            "--speculative-num-steps", str(self.drafts), "--speculative-eagle-topk", "4",
            "--speculative-num-draft-tokens", "16",
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        """vLLM's --speculative-config."""
        return {"method": self.method, "model": self.draft, "num_speculative_tokens": self.drafts}

    def __str__(self) -> str:
        image, port = (VLLM_IMAGE, 8000) if self.engine == "vllm" else (SGLANG_IMAGE, 30000)
        lines = [f"# {self.model} with {self.draft}" + (f": {self.note}" if self.note else "")]
        lines.append(f"{DOCKER} -p 127.0.0.1:{port}:{port} {image} \\")
        words = [shlex.quote(word) for word in self.argv]
        starts = [0, *(i for i, word in enumerate(words) if word.startswith("--")), len(words)]
        parts = [" ".join(words[a:b]) for a, b in pairwise(starts)]
        return "\n".join(lines) + "\n  " + " \\\n  ".join(parts)


PUBLIC: tuple[PublicDraft, ...] = (
    PublicDraft(
        "vllm", "medusa", VICUNA, "abhigoyal/vllm-medusa-vicuna-7b-v1.3", 5,
        "vLLM's layout; FasterDecoding/medusa-vicuna-7b-v1.3 is in medusa-llm's, which vLLM does not read",
    ),
    PublicDraft("vllm", "eagle3", LLAMA, "RedHatAI/Llama-3.1-8B-Instruct-speculator.eagle3", 3),
    PublicDraft("vllm", "eagle3", QWEN, "AngelSlim/Qwen3-8B_eagle3", 3, "acceptance length 2.93, vLLM #22333"),
    PublicDraft("sglang", "eagle3", LLAMA, "jamesliu1/sglang-EAGLE3-Llama-3.1-Instruct-8B", 3),
    PublicDraft("sglang", "eagle3", QWEN, "Tengyunw/qwen3_8b_eagle3", 3),
)  # fmt: skip


def on_spark(method: str) -> list[PublicDraft]:
    """The public drafts of a method.

    Raises:
        LabsError: there is none for it.
    """
    found = [public for public in PUBLIC if public.method == method]
    if not found:
        raise LabsError(f"no public draft for {method!r} is listed", "methods: medusa, eagle3")
    return found
