"""What this machine is: a plain CPU machine, one with an NVIDIA GPU, or a DGX Spark."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from labs_helpers.machine.docker_daemon import DockerState, docker_state
from labs_helpers.machine.memory import GIB, ROOT, host_memory, number, own_cgroups, read
from labs_helpers.machine.nvml import Gpu, query_gpu

Kind = Literal["cpu", "cuda", "spark"]
SPARK_CAPABILITY = (12, 1)


@dataclass(frozen=True)
class Machine:
    """Everything about a machine that a figure depends on. Holds no host name, user name or address."""

    kind: Kind
    why: str
    """The sentence that explains `kind`."""
    cpu: str
    arch: str
    cores: int
    """Cores this process may use: affinity and cgroup quota count."""
    memory_total: int
    """Bytes of host memory, or the cgroup's limit when that is less."""
    gpu: Gpu | None
    python: str
    os: str
    docker: DockerState

    @property
    def label(self) -> str:
        """A short provenance string, e.g. 'AMD EPYC, 2 cores, 24 GiB'."""
        parts = [self.cpu, f"{self.cores} core{'s' if self.cores != 1 else ''}", f"{self.memory_total / GIB:.0f} GiB"]
        if self.kind == "spark":
            return ", ".join(["DGX Spark (GB10)", *parts[1:]])
        if self.gpu:
            return ", ".join([f"{self.gpu.count} x {self.gpu.name}" if self.gpu.count > 1 else self.gpu.name, *parts])
        return ", ".join(parts)

    @property
    def gpu_name(self) -> str:
        """The GPU's name, '' without one."""
        return self.gpu.name if self.gpu else ""

    def card(self) -> dict[str, Any]:
        """Everything as a dictionary that JSON can hold, for `LabResult.machine`."""
        return {"label": self.label, **asdict(self)}

    def __str__(self) -> str:
        """What a notebook shows at its top: one line per fact, plain text."""
        gpu = "none"
        if self.gpu:
            capability = ".".join(map(str, self.gpu.capability)) if self.gpu.capability else "unknown"
            memory = f"{self.gpu.memory_total / GIB:.0f} GiB" if self.gpu.memory_total else "unified with the host"
            gpu = f"{self.gpu.name} (capability {capability}, driver {self.gpu.driver}, memory {memory})"
        docker = f"ready ({self.docker.version})" if self.docker.ready else self.docker.reason
        rows = {
            "machine": f"{self.kind}: {self.why}",
            "CPU": f"{self.cpu}, {self.arch}, {self.cores} core{'s' if self.cores != 1 else ''}",
            "memory": f"{self.memory_total / GIB:.1f} GiB",
            "GPU": gpu,
            "system": f"{self.os}, Python {self.python}",
            "Docker": docker,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def detect(root: Path = ROOT) -> Machine:
    """Look at this machine. Takes well under a second and never raises.

    A DGX Spark is an aarch64 machine whose GPU is a GB10 (by name or by compute capability 12.1) or whose release
    file names it; the DMI product name is not reliable. A Spark whose GPU cannot be reached counts as a CPU machine,
    because that is what an engine would find.

    Args:
        root: where /proc, /sys and /etc are read from.
    """
    arch = platform.machine()
    gpu, no_gpu = query_gpu()
    kind, why = classify(arch, gpu, no_gpu, released_as_spark(root))
    return Machine(
        kind=kind,
        why=why,
        cpu=_cpu_name(root),
        arch=arch,
        cores=usable_cores(root),
        memory_total=host_memory(root).total,
        gpu=gpu,
        python=platform.python_version(),
        os=_os_name(root),
        docker=docker_state(),
    )


def classify(arch: str, gpu: Gpu | None, no_gpu: str, release_names_spark: bool) -> tuple[Kind, str]:
    """The kind of machine and the sentence that says why."""
    if gpu is None:
        if release_names_spark:
            return "cpu", f"a DGX Spark by its release file, but its GPU cannot be used: {no_gpu}"
        return "cpu", no_gpu
    if arch == "aarch64":
        if "GB10" in gpu.name:
            return "spark", f"aarch64 with {gpu.name}"
        if gpu.capability == SPARK_CAPABILITY:
            return "spark", "aarch64 with a GPU of compute capability 12.1"
        if release_names_spark:
            return "spark", "aarch64 with an NVIDIA GPU, and the release file names a DGX Spark"
    return "cuda", f"an NVIDIA GPU: {gpu.name}"


def released_as_spark(root: Path = ROOT) -> bool:
    """Whether a release file says this is a DGX Spark or one of its sister products."""
    if (root / "etc/fastos-release").exists():
        return True
    return "DGX Spark" in read(root / "etc/dgx-release")


def usable_cores(root: Path = ROOT) -> int:
    """Cores this process may use: the affinity mask, or a cgroup's quota when that is less. At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in own_cgroups(root, "cpu"):
        quota, _, period = read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        limit, per = number(quota), number(period)
        if limit and per:
            cores = min(cores, math.ceil(limit / per))
    return max(1, cores)


def _cpu_name(root: Path) -> str:
    """The model name; /proc/cpuinfo has none on Arm, where lscpu knows it from its own table."""
    for line in read(root / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    try:
        found = subprocess.run(["lscpu"], capture_output=True, text=True, timeout=5, env={**os.environ, "LC_ALL": "C"})
        names = [line.partition(":")[2].strip() for line in found.stdout.splitlines() if line.startswith("Model name")]
    except (OSError, subprocess.SubprocessError):
        names = []
    return " + ".join(name for name in names if name and name != "-") or platform.processor() or platform.machine()


def _os_name(root: Path) -> str:
    for line in read(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return f"{platform.system()} {platform.release()}"
