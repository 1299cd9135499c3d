"""Memory that is really free: the kernel's estimate, held under the limits of the container or service we run in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path("/")
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes in all and bytes that a new process can take, and where that is known from."""

    total: int
    available: int
    source: str
    """'/proc/meminfo', 'cgroup limit', 'NVML' or 'psutil'."""

    def __str__(self) -> str:
        return f"{self.available / GIB:.1f} of {self.total / GIB:.1f} GiB free ({self.source})"


def free_memory(root: Path = ROOT) -> Memory:
    """Memory an engine can put weights and KV cache in.

    A discrete GPU's own memory by NVML; everywhere else, and on unified memory where NVML answers NotSupported or
    `[N/A]` (DGX Spark), the host's.
    """
    from labs_helpers.machine.nvml import gpu_memory

    return gpu_memory() or host_memory(root)


def host_memory(root: Path = ROOT) -> Memory:
    """The host's memory: MemAvailable of /proc/meminfo, or what a cgroup limit leaves of it when that is less."""
    memory = _meminfo(root) or _psutil()
    for limit, used in _cgroup_limits(root):
        if limit < memory.total:
            memory = Memory(limit, max(0, min(memory.available, limit - used)), "cgroup limit")
    return memory


def own_cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group for `controller`, from the innermost to the mount point.

    Both hierarchies are looked at (v2 is one tree, v1 one tree per controller). Inside a container the path that
    /proc/self/cgroup names may exist only outside; then just the mount point, which is the container's, is left.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = mount / path.strip("/")
        while folder != mount:
            if folder.is_dir():
                yield folder
            folder = folder.parent
        yield mount


def number(text: str) -> int | None:
    """A whole number out of a kernel file; None for 'max', '-1' (both: no limit) and for an unreadable file."""
    text = text.strip()
    return int(text) if text.isdigit() else None


def _cgroup_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use that cannot be reclaimed) of every level that has a limit."""
    for folder in own_cgroups(root, "memory"):
        v2 = (folder / "memory.max").exists()
        limit = number(read(folder / ("memory.max" if v2 else "memory.limit_in_bytes")))
        used = number(read(folder / ("memory.current" if v2 else "memory.usage_in_bytes")))
        if limit is None or used is None:
            continue
        statistics = dict(line.split()[:2] for line in read(folder / "memory.stat").splitlines() if " " in line)
        reclaimable = int(statistics.get("inactive_file" if v2 else "total_inactive_file", 0))
        yield limit, max(0, used - reclaimable)


def _meminfo(root: Path) -> Memory | None:
    fields: dict[str, Any] = {}
    for line in read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        fields[name] = number(rest.split()[0] if rest.split() else "")
    total, available = fields.get("MemTotal"), fields.get("MemAvailable")
    if not total or available is None:
        return None
    return Memory(total * 1024, available * 1024, "/proc/meminfo")


def _psutil() -> Memory:
    import psutil

    memory = psutil.virtual_memory()
    return Memory(memory.total, memory.available, "psutil")


def read(path: Path) -> str:
    """The text of a kernel or release file, '' where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
