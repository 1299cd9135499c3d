"""SGLang on a machine with an NVIDIA GPU: what its container is, as a description. Nothing here starts one.

Image and arguments for DGX Spark: NVIDIA/dgx-spark-playbooks, "SGLang"; docs.sglang.io, "Server Arguments".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from labs_helpers.engines import options
from labs_helpers.engines.base import ModelSpec
from labs_helpers.engines.container_spec import ContainerSpec
from labs_helpers.engines.sglang_options import SGLangOptions

IMAGE = "lmsysorg/sglang:latest-cu130"
PORT = 30000
"""The server's port inside the container."""
CACHE = "/root/.cache/huggingface"


class SGLangContainerOptions(SGLangOptions):
    """What a lab may set beside a GPU. One engine at a time: on a Spark the GPU's memory is the machine's."""

    image: str = Field(IMAGE, min_length=1, description="the image and its tag")
    attention_backend: Literal["triton", "flashinfer", "trtllm_mha", "fa3", "fa4", "torch_native"] = Field(
        "triton", description="triton runs on every GPU; the others need one they were written for"
    )
    memory_fraction: float | None = Field(
        0.75,
        gt=0,
        le=0.9,
        strict=False,
        description="part of the GPU's memory for weights and KV pool; above 0.9 a Spark may freeze",
    )
    cuda_graphs: bool = Field(True, description="replay the decode step as one recorded graph; False is the baseline")
    cuda_graph_max_batch: int | None = Field(None, ge=1, description="largest batch recorded; None: SGLang's choice")
    quantization: str | None = Field(None, description="e.g. modelopt_fp4; None: as the checkpoint says")


def container(model: ModelSpec, *, huggingface: Path | None = None, **given: Any) -> ContainerSpec:
    """The container that serves `model`, a hub id.

    Args:
        huggingface: this machine's cache of the model hub, so that nothing is downloaded twice.
        given: options of `SGLangContainerOptions`.

    Raises:
        LabsError: an option it does not have, or a value it cannot take.
    """
    chosen = options.read(SGLangContainerOptions, "sglang", given)
    argv = ["python3", "-m", "sglang.launch_server"]
    # the address inside: what is reachable from outside is decided where the port is published
    argv += chosen.arguments(model, path=model.location, host="0.0.0.0", port=PORT)  # noqa: S104
    argv += ["--attention-backend", chosen.attention_backend]
    if not chosen.cuda_graphs:
        argv.append("--disable-cuda-graph")
    elif chosen.cuda_graph_max_batch is not None:
        argv += ["--cuda-graph-max-bs-decode", str(chosen.cuda_graph_max_batch)]
    if chosen.quantization is not None:
        argv += ["--quantization", chosen.quantization]
    return ContainerSpec(
        name="labs-sglang",
        image=chosen.image,
        argv=(*argv, *chosen.extra_args),
        port=PORT,
        mounts={huggingface or Path.home() / ".cache" / "huggingface": CACHE},
    )
