"""A against B, fairly: taken in turns, so that a machine that drifts drifts for both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labs_helpers.bench.metrics import median
from labs_helpers.bench.progress import request_progress
from labs_helpers.bench.report import Run
from labs_helpers.errors import LabsError
from labs_helpers.results import METRICS, Load, Measurement, Spread

Take = Callable[[], Awaitable[Run | float]]
"""Takes one reading: a whole run, or the figure itself."""


@dataclass(frozen=True)
class Comparison:
    """Repeated readings of one metric on two sides, `candidate` against `baseline`."""

    metric: str
    names: tuple[str, str]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    last_run: Run | None
    """The candidate's last run, which gives a measurement its provenance."""

    @property
    def speedup(self) -> float:
        """How many times better the candidate is (above 1 it is better): the ratio of the medians."""
        return float(_speedup(self.metric, np.array([self.baseline]), np.array([self.candidate]))[0])

    @property
    def spread(self) -> Spread:
        """Bootstrap 95% of the speedup. Pairs are resampled together, since each pair was taken side by side."""
        a, b = np.array(self.baseline), np.array(self.candidate)
        picks = np.random.default_rng(0).integers(0, len(a), size=(2000, len(a)))
        low, high = np.percentile(_speedup(self.metric, a[picks], b[picks]), (2.5, 97.5))
        return Spread(low=float(low), high=float(high), kind="bootstrap95")

    @property
    def is_clear(self) -> bool:
        """Whether the spread leaves out 1, no difference."""
        return self.spread.low > 1 or self.spread.high < 1

    def measurement(self, **provenance: Any) -> Measurement:
        """The speedup as a record; provenance (engine, version, load...) is the candidate's unless given."""
        run = self.last_run
        known: dict[str, Any] = (
            {}
            if run is None
            else {
                "engine": run.engine,
                "engine_version": run.engine_version,
                "model": run.model,
                "precision": run.precision,
                "machine": run.machine,
                "load": run.load,
                "flags": run.flags,
            }
        )
        return Measurement(
            metric="speedup",
            value=self.speedup,
            spread=self.spread,
            n=len(self.baseline),
            **({"load": Load()} | known | provenance),
        )

    def __str__(self) -> str:
        a, b = self.names
        unit = METRICS[self.metric].unit
        return (
            f"{b} is {self.speedup:.2f}x {a} in {self.metric} [{self.spread.low:.2f}, {self.spread.high:.2f}], "
            f"{len(self.baseline)} pairs: {median(self.candidate):.4g} against {median(self.baseline):.4g} {unit}"
        )


async def compare(
    sides: dict[str, Take], metric: str = "output_throughput", *, repeats: int = 5, progress: bool = True
) -> Comparison:
    """Take readings of two sides in turns and compare them.

    Args:
        sides: {"baseline's name": take, "candidate's name": take}, in this order. Each is called `repeats` times; which
            goes first alternates.
        metric: the metric of the runs to compare; where a side returns a number, what that number is.
        repeats: pairs; at least 3, since fewer have no spread worth showing.

    Raises:
        LabsError: not two sides, too few repeats, an unknown metric, or a reading that is not above 0.
    """
    if len(sides) != 2:
        raise LabsError(f"compare() was given {len(sides)} sides", "give two: {'off': take, 'on': take}")
    if repeats < 3:
        raise LabsError(f"{repeats} repeats have no spread", "take at least 3")
    if metric not in METRICS or METRICS[metric].better == "neither":
        raise LabsError(f"{metric!r} has no better and worse", "compare e.g. output_throughput, tpot or ttft")
    readings: dict[str, list[float]] = {name: [] for name in sides}
    runs: dict[str, Run] = {}
    with request_progress(f"compare {' and '.join(sides)}", 2 * repeats, progress) as line:
        for repeat in range(repeats):
            for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
                result = await sides[name]()
                if isinstance(result, Run):
                    runs[name] = result
                readings[name].append(_value(result, metric, name))
                line.step()
        a, b = sides
        comparison = Comparison(metric, (a, b), tuple(readings[a]), tuple(readings[b]), runs.get(b))
        line.close(str(comparison))
    return comparison


def _value(result: Run | float, metric: str, name: str) -> float:
    found: Sequence[float] = (
        [m.value for m in result.measurements() if m.metric == metric] if isinstance(result, Run) else [result]
    )
    if not found or not found[0] > 0:
        raise LabsError(f"{name} gave no {metric} above 0", "look at what that side measured")
    return float(found[0])


def _speedup(metric: str, baseline: Any, candidate: Any) -> Any:
    """Ratio of medians along the last axis, above 1 where the candidate is better."""
    a, b = np.median(baseline, axis=-1), np.median(candidate, axis=-1)
    return b / a if METRICS[metric].better == "higher" else a / b
