"""What a container is to be, as data. `docker_argv` turns it into a command; nothing here runs one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ContainerSpec:
    """One inference server in a container, on a machine with an NVIDIA GPU.

    The flags are those of NVIDIA's playbooks for DGX Spark (github.com/NVIDIA/dgx-spark-playbooks).
    """

    name: str
    image: str
    argv: tuple[str, ...]
    """The command inside the container, as a list."""
    port: int
    """Where the server listens inside the container."""
    health_path: str = "/health"
    ready_timeout_s: float = 900.0
    """Loading weights and compiling kernels takes minutes on the first start."""
    env: Mapping[str, str] = field(default_factory=dict)
    passed_env: tuple[str, ...] = ("HF_TOKEN",)
    """Variables handed on from the caller by name, so that their values stand in no command line."""
    mounts: Mapping[Path, str] = field(default_factory=dict)
    """Folder here -> path in the container."""

    def docker_argv(self, host_port: int) -> tuple[str, ...]:
        """`docker run ...` with the server published on 127.0.0.1 only, removed when it ends."""
        argv = ["docker", "run", "--rm", "--name", self.name]
        argv += ["--gpus", "all"]
        # the engine's processes hand tensors to each other in shared memory, far more than Docker's default of 64 MB
        argv += ["--ipc=host"]
        # pinned memory for transfers, and deep stacks of native threads
        argv += ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
        argv += ["--publish", f"127.0.0.1:{host_port}:{self.port}"]
        for name in self.passed_env:
            argv += ["--env", name]
        for name, value in self.env.items():
            argv += ["--env", f"{name}={value}"]
        for folder, inside in self.mounts.items():
            argv += ["--volume", f"{folder}:{inside}"]
        return (*argv, self.image, *self.argv)

    def command_line(self, host_port: int) -> str:
        """The same as a line for a shell, with the home folder as ~."""
        home = f"{Path.home()}/"
        return " ".join(
            "~/" + shlex.quote(word.removeprefix(home)) if word.startswith(home) else shlex.quote(word)
            for word in self.docker_argv(host_port)
        )
