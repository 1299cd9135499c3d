"""SGLang on a machine with an NVIDIA GPU: what its container is, as a description. Nothing here starts one.

Image and arguments for DGX Spark: NVIDIA/dgx-spark-playbooks, "SGLang"; docs.sglang.io, "Server Arguments".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from labs_helpers.engines import options
from labs_helpers.engines.base import ModelSpec
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


@dataclass(frozen=True)
class ContainerSpec:
    """How to start one server in a container. `command` is a list for the kernel, never a shell string."""

    image: str
    command: tuple[str, ...]
    port: int
    """Inside; published as `host_port` on 127.0.0.1 only."""
    host_port: int
    volumes: tuple[tuple[str, str], ...] = ()
    """Folders of this machine and where they are seen inside."""
    passed_on: tuple[str, ...] = ("HF_TOKEN",)
    """Variables handed on by name, so that their values stand in no command line."""
    gpus: str = "all"
    ipc: str = "host"
    """Shared memory between the server's processes."""
    ulimits: tuple[tuple[str, int], ...] = (("memlock", -1), ("stack", 67_108_864))
    health_path: str = "/health"
    ready_timeout_s: float = 900.0
    env: tuple[tuple[str, str], ...] = field(default=())

    def docker_arguments(self) -> list[str]:
        """The same as arguments of `docker run`."""
        argv = ["--gpus", self.gpus, f"--ipc={self.ipc}", "-p", f"127.0.0.1:{self.host_port}:{self.port}"]
        for name, value in self.ulimits:
            argv += ["--ulimit", f"{name}={value}"]
        for here, inside in self.volumes:
            argv += ["-v", f"{here}:{inside}"]
        for name in self.passed_on:
            argv += ["-e", name]
        for name, value in self.env:
            argv += ["-e", f"{name}={value}"]
        return [*argv, self.image, *self.command]


def describe(model: ModelSpec, host_port: int, *, hub_cache: str, **given: Any) -> ContainerSpec:
    """The container that serves `model`, a hub id, on 127.0.0.1:`host_port`.

    Args:
        hub_cache: this machine's cache of the model hub, so that nothing is downloaded twice.
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
        image=chosen.image,
        command=(*argv, *chosen.extra_args),
        port=PORT,
        host_port=host_port,
        volumes=((hub_cache, CACHE),),
    )
