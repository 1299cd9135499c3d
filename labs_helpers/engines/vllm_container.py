"""vLLM on a machine with an NVIDIA GPU: what its container is, as a description. Nothing here starts one.

Image and arguments for DGX Spark: NVIDIA/dgx-spark-playbooks, "vLLM"; docs.vllm.ai, "Engine Arguments".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from labs_helpers.engines import options
from labs_helpers.engines.base import ModelSpec
from labs_helpers.engines.container_spec import ContainerSpec

IMAGE = "nvcr.io/nvidia/vllm:26.05-py3"
PORT = 8000
"""The server's port inside the container."""
CACHE = "/root/.cache/huggingface"


class VLLMContainerOptions(options.Options):
    """What a lab may set beside a GPU. One engine at a time: on a Spark the GPU's memory is the machine's."""

    image: str = Field(
        IMAGE, min_length=1, description="the image and its tag; vllm/vllm-openai is the other usual one"
    )
    memory_fraction: float = Field(
        0.8,
        gt=0,
        le=0.9,
        strict=False,
        description="part of the GPU's memory for weights and KV pool; above 0.9 a Spark may freeze",
    )
    cuda_graphs: bool = Field(
        True, description="replay the decode step as one recorded graph; False is --enforce-eager"
    )
    prefix_caching: bool = Field(True, description="reuse the KV blocks of a common prefix")
    max_num_seqs: int | None = Field(None, ge=1, description="sequences decoded together; None: vLLM's choice")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="most tokens of one step; None: vLLM's choice")
    chunked_prefill: bool | None = Field(None, description="split long prefills over steps; None: vLLM's choice")
    block_size: int | None = Field(None, ge=1, description="tokens of one KV block; None: vLLM's choice")
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "int8_per_token_head"] = Field(
        "auto", description="auto is the model's own type; fp8 halves the bytes"
    )
    kv_cache_bytes: int | None = Field(None, ge=2**20, description="bytes of KV cache; None: what the fraction leaves")
    quantization: str | None = Field(None, description="e.g. modelopt_fp4; None: as the checkpoint says")
    speculative: dict[str, Any] | None = Field(None, description="vLLM's --speculative-config")
    extra_args: tuple[str, ...] = Field((), strict=False, description="further arguments, passed on as they are")


def container(model: ModelSpec, *, huggingface: Path | None = None, **given: Any) -> ContainerSpec:
    """The container that serves `model`, a hub id.

    Args:
        huggingface: this machine's cache of the model hub, so that nothing is downloaded twice.
        given: options of `VLLMContainerOptions`.

    Raises:
        LabsError: an option it does not have, or a value it cannot take.
    """
    chosen = options.read(VLLMContainerOptions, "vllm", given)
    argv = ["vllm", "serve", model.location, "--served-model-name", model.name]
    # the address inside: what is reachable from outside is decided where the port is published
    argv += ["--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104
    argv += ["--max-model-len", str(chosen.max_model_len)]
    argv += ["--gpu-memory-utilization", str(chosen.memory_fraction)]
    argv += ["--kv-cache-dtype", chosen.kv_cache_dtype, "--enable-prompt-tokens-details"]
    argv.append("--enable-prefix-caching" if chosen.prefix_caching else "--no-enable-prefix-caching")
    if not chosen.cuda_graphs:
        argv.append("--enforce-eager")
    if chosen.chunked_prefill is not None:
        argv.append("--enable-chunked-prefill" if chosen.chunked_prefill else "--no-enable-chunked-prefill")
    for name, value in {
        "--max-num-seqs": chosen.max_num_seqs,
        "--max-num-batched-tokens": chosen.max_num_batched_tokens,
        "--block-size": chosen.block_size,
        "--kv-cache-memory-bytes": chosen.kv_cache_bytes,
        "--quantization": chosen.quantization,
    }.items():
        if value is not None:
            argv += [name, str(value)]
    if chosen.speculative is not None:
        argv += ["--speculative-config", json.dumps(chosen.speculative)]
    return ContainerSpec(
        name="labs-vllm",
        image=chosen.image,
        argv=(*argv, *chosen.extra_args),
        port=PORT,
        mounts={huggingface or Path.home() / ".cache" / "huggingface": CACHE},
    )
