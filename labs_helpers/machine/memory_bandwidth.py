"""How fast this machine reads memory, at the size of the data that is read.

Decode streams the same weights over and over. Weights far larger than the last-level cache come from DRAM each time;
weights that fit may stay in the cache between two tokens and be read several times faster. So the honest figure for a
model is the read bandwidth *at a working set of the size of its weights*, read repeatedly; a DRAM figure would put a
small model above its own roof. `bandwidth` takes the working set for that reason, and the doctor shows both. A roof is
a best case: the value is the fastest pass, and the spread runs down to the slowest.

Measure while nothing else runs: an engine that is serving takes its share of the same memory. A reader that lost its
core to another program is noticed by its CPU time; when that happened in every pass, the figure is marked as a lower
bound.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from labs_helpers.errors import LabsError
from labs_helpers.machine.memory import ROOT, host_memory, number
from labs_helpers.results import Measurement, Spread

if TYPE_CHECKING:
    from labs_helpers.machine.detection import Machine

MIB = 2**20
SPARK_BANDWIDTH = 273.0
SPARK_SOURCE = "NVIDIA, DGX Spark User Guide, system specifications: LPDDR5x, 273 GB/s (docs.nvidia.com/dgx/dgx-spark)"
SECONDS_PER_KERNEL = 0.2
SECONDS_PER_KERNEL_AT_MOST = 0.6
CALM = 0.95
"""Share of a pass that every reader must spend on its core; less means that another program had it."""
CALM_PASSES = 3
SMALLEST_WORKING_SET = 4 * MIB
LARGEST_WORKING_SET = 1024 * MIB
Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Bandwidth:
    """Read bandwidth in GB/s (1e9 bytes per second) and where it comes from."""

    gb_per_s: float
    source: Literal["measured", "published"]
    working_set_bytes: int = 0
    """Bytes that were read over and over; 0 for a published figure."""
    spread: Spread | None = None
    n: int = 0
    """Passes that were timed."""
    cited_from: str | None = None
    reader: str = ""
    """What read the memory, e.g. 'numpy 2.4.6'; '' for a published figure."""
    busy: bool = False
    """Other programs took the cores during every pass: the memory can do more than this."""

    def __str__(self) -> str:
        if self.source == "published":
            return f"{self.gb_per_s:.0f} GB/s (published: {self.cited_from})"
        low = f", slowest {self.spread.low:.0f}" if self.spread else ""
        size = self.working_set_bytes / MIB
        busy = "; other programs were running, so this is a lower bound" if self.busy else ""
        return f"{self.gb_per_s:.0f} GB/s over {size:,.0f} MiB (measured: best of {self.n} passes{low}{busy})"

    def as_measurement(self, machine: Machine) -> Measurement:
        """The figure with its provenance, for the records of a lab."""
        if self.source == "published":
            return Measurement(
                metric="bandwidth",
                value=self.gb_per_s,
                engine="memory",
                machine=machine.label,
                source="reference",
                cited_from=self.cited_from,
            )
        return Measurement(
            metric="bandwidth",
            value=self.gb_per_s,
            spread=self.spread,
            n=self.n,
            engine="memory",
            engine_version=self.reader,
            machine=machine.label,
            load={"workload": f"read {self.working_set_bytes / MIB:.0f} MiB", "arrival": "none"},
            flags=("machine-busy",) if self.busy else (),
        )


def bandwidth(machine: Machine, working_set_bytes: int | None = None, *, device: Device = "auto") -> Bandwidth:
    """Read bandwidth of the memory that engines on `machine` keep weights in.

    A DGX Spark gets the published figure; another CUDA GPU is measured with torch on the device; a CPU with numpy
    kernels over all usable cores (under a second). One measurement per size and process.

    Args:
        machine: as `detect` returns it.
        working_set_bytes: the size of the weights, e.g. `ModelSpec.bytes_per_token`. None means a size that no
            cache holds. Above 1 GiB (or a quarter of what is free) it is measured at that: it is the same memory.
        device: where the engines run: 'cpu' for the CPU profile, 'gpu', or 'auto' for the GPU where there is one.

    Raises:
        LabsError: there is a GPU, but this Python's torch cannot use it.
    """
    on_gpu = device == "gpu" or (device == "auto" and machine.kind != "cpu")
    if on_gpu and machine.kind == "spark":
        return Bandwidth(SPARK_BANDWIDTH, "published", cited_from=SPARK_SOURCE)
    largest = LARGEST_WORKING_SET if on_gpu else min(LARGEST_WORKING_SET, host_memory().available // 4)
    wanted = working_set_bytes or (LARGEST_WORKING_SET if on_gpu else dram_working_set())
    size = max(SMALLEST_WORKING_SET, min(wanted, largest))
    found = _measure("cuda" if on_gpu else "cpu", machine.cores, size)
    if found.busy:  # next time may be quieter
        _measure.cache_clear()
    return found


def last_level_cache(root: Path = ROOT) -> int:
    """Bytes of last-level cache over all its instances; 0 where the kernel does not say."""
    instances: dict[tuple[int, str], int] = {}
    for index in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        try:
            level = int((index / "level").read_text())
            size = number((index / "size").read_text().strip().removesuffix("K"))
            shared = (index / "shared_cpu_list").read_text().strip()
        except (OSError, ValueError):
            continue
        if size:
            instances[level, shared] = size * 1024
    last = max((level for level, _ in instances), default=0)
    return sum(size for (level, _), size in instances.items() if level == last)


def dram_working_set(root: Path = ROOT) -> int:
    """Bytes that no cache holds: four times the last-level cache, 256 MiB to 1 GiB."""
    return min(LARGEST_WORKING_SET, max(256 * MIB, 4 * last_level_cache(root)))


class Pass(NamedTuple):
    """One timed read of the whole working set."""

    seconds: float
    calm: bool
    """Whether the readers had their cores to themselves throughout."""


@functools.cache
def _measure(device: str, cores: int, size: int) -> Bandwidth:
    passes = list(_torch_passes(device, size) if device == "cuda" else _host_passes(size, cores))
    rates = sorted(size / one.seconds / 1e9 for one in passes)
    spread = Spread(low=rates[0], high=rates[-1], kind="minmax")
    busy = not any(one.calm for one in passes)
    return Bandwidth(rates[-1], "measured", size, spread, len(rates), reader=_reader(device), busy=busy)


def _host_passes(size: int, cores: int) -> Iterator[Pass]:
    """Passes over `size` bytes, each core reading its own share.

    Reductions in numpy, because they release the interpreter's lock and because its large arrays ask for huge pages.
    Three kernels, since which one keeps up with the memory differs between processors. The array is written first:
    untouched pages would all be one shared page of zeros. Where other programs take the cores, it goes on for longer in
    the hope of a pass in which they do not.
    """
    import numpy as np

    words = size // 8
    shares = np.array_split(np.ones(words, dtype=np.int64), cores)
    kernels: tuple[Callable[[Any], Any], ...] = (
        np.bitwise_or.reduce,
        np.add.reduce,
        lambda share: np.maximum.reduce(share.view(np.uint8)),
    )
    # One pass over a small working set is over before all threads have started: time several as one.
    repeats = max(1, 64 * MIB // size)
    barrier = Barrier(cores)

    def read(kernel: Callable[[Any], Any], share: Any) -> tuple[float, float, float]:
        barrier.wait()
        start, on_core = time.perf_counter(), time.thread_time()
        for _ in range(repeats):
            kernel(share)
        return start, time.perf_counter(), time.thread_time() - on_core

    with ThreadPoolExecutor(cores) as pool:
        for kernel in kernels:
            list(pool.map(read, [kernel] * cores, shares))  # brings the array into the cache, where it fits
            began, done, calm_passes = time.perf_counter(), 0, 0
            while (
                done < 2
                or (spent := time.perf_counter() - began) < SECONDS_PER_KERNEL
                or (calm_passes < CALM_PASSES and spent < SECONDS_PER_KERNEL_AT_MOST)
            ):
                spans = list(pool.map(read, [kernel] * cores, shares))
                calm = all(on_core >= CALM * (end - start) for start, end, on_core in spans)
                seconds = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
                yield Pass(seconds / repeats, calm)
                done, calm_passes = done + 1, calm_passes + calm


def _torch_passes(device: str, size: int) -> Iterator[Pass]:
    """Reads of `size` bytes by a torch reduction on `device`.

    Raises:
        LabsError: torch is built without support for that device.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise LabsError(
            f"torch {torch.__version__} cannot use this machine's GPU",
            "install the CUDA build of torch in the course's environment, or use --profile cpu",
        )
    data = torch.ones(size // 4, dtype=torch.float32, device=device)
    repeats = max(1, 1024 * MIB // size)
    synchronize = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    for kernel in (data.sum, data.max):
        deadline = time.perf_counter() + SECONDS_PER_KERNEL
        done = 0
        while done < 3 or time.perf_counter() < deadline:
            synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                kernel()
            synchronize()
            if done:
                yield Pass((time.perf_counter() - start) / repeats, calm=True)
            done += 1


def _reader(device: str) -> str:
    from importlib.metadata import version

    return f"torch {version('torch')}" if device == "cuda" else f"numpy {version('numpy')}"
