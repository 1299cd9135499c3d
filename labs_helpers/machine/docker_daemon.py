"""Whether containers can run here, and if not, which of the several things that can be wrong it is."""

from __future__ import annotations

import getpass
import os
import shutil
from dataclasses import dataclass
from typing import Any, Literal

DockerStatus = Literal["ready", "no-client", "daemon-down", "no-permission", "timeout", "error"]
PING_TIMEOUT_S = 3


@dataclass(frozen=True)
class DockerState:
    """The state of Docker for this user, with the command that changes it."""

    status: DockerStatus
    version: str = ""
    nvidia_runtime: bool = False
    """Whether `--gpus all` can work: the NVIDIA container toolkit is known to the daemon."""
    in_group: bool = False
    """Whether this user is in the `docker` group (root needs no group)."""
    reason: str = ""
    remedy: str = ""

    @property
    def ready(self) -> bool:
        """Whether a container can be started now."""
        return self.status == "ready"


def docker_state() -> DockerState:
    """Ask the daemon for its version, within three seconds. Never raises."""
    import docker
    from docker.errors import DockerException

    in_group = _in_docker_group()
    client: Any = None
    try:
        client = docker.from_env(timeout=PING_TIMEOUT_S)
        info = client.info()
    except (DockerException, OSError) as error:
        return _diagnose(error, in_group)
    finally:
        if client is not None:
            client.close()
    runtimes = info.get("Runtimes") or {}
    # Either the runtime of the NVIDIA toolkit, or (since Docker 28.2) its devices by the Container Device Interface.
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    return DockerState(
        "ready",
        version=str(info.get("ServerVersion", "")),
        nvidia_runtime="nvidia" in runtimes or any(device.startswith("nvidia.com/gpu") for device in devices),
        in_group=in_group,
    )


def _diagnose(error: BaseException, in_group: bool) -> DockerState:
    """Which of the known failures this is. The library wraps the operating system's error several layers deep."""
    chain = list(_causes(error))
    text = " ".join(str(link) for link in chain).lower()
    if any(isinstance(link, PermissionError) for link in chain) or "permission denied" in text:
        remedy = (
            "log out and in again, so that the docker group takes effect"
            if in_group
            else f"sudo usermod -aG docker {_user()} && newgrp docker"
        )
        return DockerState(
            "no-permission",
            in_group=in_group,
            remedy=remedy,
            reason="the Docker daemon runs, but this user may not use its socket",
        )
    if "timed out" in text or "timeout" in text:
        return DockerState(
            "timeout",
            in_group=in_group,
            reason=f"the Docker daemon did not answer within {PING_TIMEOUT_S} s",
            remedy="sudo systemctl restart docker",
        )
    if (
        any(isinstance(link, FileNotFoundError | ConnectionRefusedError) for link in chain)
        or "no such file" in text
        or "connection refused" in text
    ):
        if shutil.which("docker") is None:
            return DockerState(
                "no-client",
                in_group=in_group,
                reason="Docker is not installed",
                remedy="sudo apt-get install docker.io, or see docs.docker.com/engine/install",
            )
        return DockerState(
            "daemon-down",
            in_group=in_group,
            reason="the docker command is installed, but no daemon answers",
            remedy="sudo systemctl start docker",
        )
    return DockerState(
        "error", in_group=in_group, reason=f"Docker does not answer: {str(error).splitlines()[0]}", remedy="docker info"
    )


def _causes(error: BaseException | None) -> Any:
    """The error, what it was raised from, and errors carried as arguments."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        link = queue.pop()
        if link is None or any(link is known for known in seen):
            continue
        seen.append(link)
        yield link
        queue += [link.__cause__, link.__context__, *(a for a in link.args if isinstance(a, BaseException))]


def _in_docker_group() -> bool:
    try:
        import grp

        return grp.getgrnam("docker").gr_gid in os.getgroups()
    except (ImportError, KeyError):
        return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "$USER"
