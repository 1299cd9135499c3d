"""Whether the client itself was the bottleneck: how late it sent, and how much of a core it used."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from labs_helpers.bench.metrics import median, percentile_or_max
from labs_helpers.bench.sample import Sample

LAG_LIMIT = 0.10
"""Scheduling lag may be this share of the median TTFT."""
CPU_LIMIT = 0.90
"""Share of one core the client's thread may use; it has only one."""


@dataclass(frozen=True)
class Saturation:
    """The client's own state during a load."""

    lag_ms: float
    lag_label: str
    """'P99', or 'max of n' where there were fewer than 100 requests."""
    lag_share: float
    """The lag as a share of the median TTFT."""
    cpu_share: float
    """CPU time of the client's thread over wall time; 1 is a whole core."""

    @property
    def client_bound(self) -> bool:
        """True when the figures say more about the client than about the server."""
        return self.lag_share > LAG_LIMIT or self.cpu_share > CPU_LIMIT


class CpuMeter:
    """CPU and wall seconds of this thread since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.thread_time(), time.monotonic()

    def share(self) -> float:
        return (time.thread_time() - self._cpu) / max(time.monotonic() - self._wall, 1e-9)


def saturation(samples: Sequence[Sample], cpu_share: float) -> Saturation:
    """Judge the client by samples that succeeded (at least one)."""
    lag = percentile_or_max([max(s.lag_s, 0.0) for s in samples], 99)
    typical_ttft = median([s.ttft_s for s in samples])
    return Saturation(lag.value * 1e3, lag.label, lag.value / max(typical_ttft, 1e-9), cpu_share)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector out of a load: with PyTorch imported a full pass stops all streams for tenths of a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
