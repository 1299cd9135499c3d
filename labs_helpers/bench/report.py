"""`Run`: one load against one server, and the measurements that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labs_helpers.bench import metrics, witness
from labs_helpers.bench.metrics import Floats
from labs_helpers.bench.sample import Sample
from labs_helpers.bench.saturation import Saturation
from labs_helpers.engines.base import Counters
from labs_helpers.errors import LabsError
from labs_helpers.results import METRICS, Load, Measurement, Spread

_WINDOWS = 10
"""Rates get their spread from this many equal windows of the load."""


@dataclass(frozen=True)
class Limits:
    """What a request must meet to count as good. A limit left out is not asked for."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    def met_by(self, sample: Sample) -> bool:
        """Whether the request succeeded and met ALL limits."""
        if sample.error is not None:
            return False
        tpot = sample.tpot_s
        seen = ((self.ttft_ms, sample.ttft_s), (self.tpot_ms, tpot or 0.0), (self.e2e_ms, sample.e2e_s))
        return all(limit is None or value * 1e3 <= limit for limit, value in seen)


@dataclass(frozen=True, repr=False)
class Run:
    """One load and everything seen while it ran. `samples` holds every request, failed ones included."""

    samples: tuple[Sample, ...]
    load: Load
    started: float
    """When the first request was due, and `ended` when the last event came: seconds on `client.clock`."""
    ended: float
    saturation: Saturation
    counters: Counters | None
    """What the engine's own counters added during the load, None where it has none."""
    limits: Limits | None
    engine: str
    engine_version: str
    model: str
    precision: str
    machine: str
    flags: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.ended - self.started

    @property
    def good(self) -> tuple[Sample, ...]:
        """The samples without an error."""
        return tuple(s for s in self.samples if s.error is None)

    @property
    def errors(self) -> dict[str, int]:
        """How often each error occurred."""
        return dict(Counter(s.error for s in self.samples if s.error is not None))

    @property
    def label(self) -> str:
        """Engine, model and machine in a few words, for figures."""
        return f"{self.engine} {self.engine_version} · {self.model} {self.precision} · {self.machine}"

    @property
    def output_tokens_per_s(self) -> float:
        """Completion tokens of all requests over the duration of the load."""
        return sum(s.completion_tokens for s in self.good) / self.duration_s

    def engine_count(self, name: str) -> float:
        """How much one of the engine's own counters grew during the load, by its name on the metrics page.

        Raises:
            LabsError: the engine has no such counter, or none was read.
        """
        raw = self.counters.raw if self.counters is not None else {}
        if name not in raw:
            raise LabsError(f"{self.engine} counted no {name!r} during this load", "read the server's /metrics")
        return raw[name]

    def values(self, metric: str) -> Floats:
        """Every sample of 'ttft', 'tpot', 'itl' or 'e2e' in ms, of 'decode_throughput' or 'prefill_throughput' in
        tokens per second. TPOT has none for requests whose first event carried everything."""
        return _PER_SAMPLE[metric](self.good)

    def where(self, keep: Callable[[Sample], bool], workload: str) -> Run:
        """The part of a mixed load whose samples are to be looked at alone, under a name of its own.

        The engine's counters are about the whole load, so the part has no witness.

        Raises:
            LabsError: no sample that succeeded is kept.
        """
        samples = tuple(s for s in self.samples if keep(s))
        good = [s for s in samples if s.error is None]
        if not good:
            raise LabsError(f"no request of this run belongs to {workload!r}", "look at run.samples")
        load = self.load.model_copy(
            update={
                "workload": workload,
                "requests": len(samples),
                "prompt_tokens": sum(s.prompt_tokens for s in good) / len(good),
                "output_tokens": sum(s.completion_tokens for s in good) / len(good),
            }
        )
        return replace(self, samples=samples, load=load, counters=None)

    def measurements(self, *only: str) -> list[Measurement]:
        """The run in records of the course's schema; the engine's own figure stands beside ours as `witness`.

        With names, only these metrics: a load made for prefill says nothing worth keeping about decode.

        Raises:
            LabsError: a name is no metric.
        """
        if unknown := [name for name in only if name not in METRICS]:
            raise LabsError(f"there is no metric {unknown[0]!r}", f"metrics: {', '.join(METRICS)}")
        found = [*self._latencies(), *self._rates(), *self._totals()]
        return [m for m in found if not only or m.metric in only]

    def measurement(
        self,
        metric: str,
        value: float,
        *,
        n: int,
        spread: Spread | None = None,
        flags: tuple[str, ...] = (),
        method: str = "",
    ) -> Measurement:
        """A figure that was taken from this run, with the run's provenance; `method` says how tokens were drafted."""
        own = witness.figure(metric, self.good, self.counters, self.duration_s)
        return Measurement(
            metric=metric,
            value=value,
            n=n,
            spread=spread,
            witness=own,
            engine=self.engine,
            engine_version=self.engine_version,
            model=self.model,
            precision=self.precision,
            machine=self.machine,
            load=self.load,
            flags=(*self.flags, *flags),
            method=method,
        )

    def _latencies(self) -> list[Measurement]:
        """Medians over requests (over tokens for ITL) with the interquartile range; P99 of ITL from 100 tokens on."""
        found = []
        for metric in _PER_SAMPLE:
            values = self.values(metric)
            if len(values) == 0:
                continue
            queueing = metric == "prefill_throughput" and self.load.concurrency != 1
            found.append(
                self.measurement(
                    metric,
                    metrics.median(values),
                    n=len(values),
                    spread=metrics.iqr(values),
                    flags=("includes-queueing",) if queueing else (),
                )
            )
        gaps = self.values("itl")
        if len(gaps) >= metrics.samples_needed(99):
            found.append(self.measurement("itl_p99", metrics.percentile(gaps, 99), n=len(gaps)))
        return found

    def _rates(self) -> list[Measurement]:
        """Totals over the duration of the load; the spread is a bootstrap over equal windows of it."""
        good = self.good
        ends = np.array([s.end for s in good])
        unseen = [max(s.completion_tokens - sum(e.tokens for e in s.events), 0) for s in good]  # tokens without text
        times = np.concatenate([[e.time for s in good for e in s.events], ends])
        tokens = np.concatenate([[e.tokens for s in good for e in s.events], unseen])
        found = [
            self.measurement(
                "output_throughput", self.output_tokens_per_s, n=len(good), spread=self._window_spread(times, tokens)
            ),
            self.measurement(
                "request_throughput",
                len(good) / self.duration_s,
                n=len(good),
                spread=self._window_spread(ends, np.ones(len(ends))),
            ),
        ]
        if self.limits is not None:
            met = [self.limits.met_by(s) for s in self.samples]
            all_ends = np.array([s.end for s in self.samples])
            found.append(
                self.measurement(
                    "goodput",
                    metrics.goodput(met, self.duration_s),
                    n=len(self.samples),
                    spread=self._window_spread(all_ends, np.array(met, dtype=float)),
                )
            )
        return found

    def _totals(self) -> list[Measurement]:
        """Sums over all requests, and the share of the prompts that was cached: counts, so without a spread."""
        good = self.good
        sums = {
            "prompt_tokens": [s.prompt_tokens for s in good],
            "completion_tokens": [s.completion_tokens for s in good],
            "cached_tokens": [s.cached_tokens for s in good if s.cached_tokens is not None],
        }
        found = [self.measurement(name, float(sum(values)), n=len(values)) for name, values in sums.items() if values]
        if sums["cached_tokens"] and sum(sums["prompt_tokens"]):
            rate = sum(sums["cached_tokens"]) / sum(sums["prompt_tokens"])
            found.append(self.measurement("cache_hit_rate", rate, n=len(sums["cached_tokens"])))
        return found

    def _window_spread(self, times: Floats, weights: Floats) -> Spread:
        """Bootstrap 95% of a rate, from what fell into each of ten equal windows of the load."""
        counts, _ = np.histogram(times, bins=_WINDOWS, range=(self.started, self.ended), weights=weights)
        return metrics.bootstrap95(counts * (_WINDOWS / self.duration_s))

    def __repr__(self) -> str:
        """A few lines for the end of a notebook cell, not every sample."""
        lines = [
            f"Run of {self.engine} {self.engine_version}, {self.model} {self.precision}: {self.load.label()}, "
            f"{len(self.good)} of {len(self.samples)} requests in {self.duration_s:.1f} s"
        ]
        for m in self.measurements():
            spread = f"  [{m.spread.low:.4g}, {m.spread.high:.4g}] {m.spread.kind}" if m.spread else ""
            own = f"  engine says {m.witness:.4g}" if m.witness is not None else ""
            lines.append(f"  {m.metric:<20}{m.value:>10.4g} {m.unit:<7} n={m.n}{spread}{own}")
        lines += [f"  {n} failed: {why}" for why, n in self.errors.items()]
        if self.flags:
            lines.append(f"  flags: {', '.join(self.flags)}")
        return "\n".join(lines)


def _tpot_ms(samples: Sequence[Sample]) -> Floats:
    return np.array([t * 1e3 for s in samples if (t := s.tpot_s)])


def _prefill(samples: Sequence[Sample]) -> Floats:
    """Uncached prompt tokens over TTFT less the wait in the client; a wait in the server's queue is still in it."""
    pairs = ((s.prompt_tokens - (s.cached_tokens or 0), s.ttft_s - max(s.lag_s, 0.0)) for s in samples)
    return np.array([tokens / seconds for tokens, seconds in pairs if tokens > 0 and seconds > 0])


_PER_SAMPLE: dict[str, Callable[[Sequence[Sample]], Any]] = {
    "ttft": lambda samples: np.array([s.ttft_s * 1e3 for s in samples]),
    "tpot": _tpot_ms,
    "itl": lambda samples: np.concatenate([np.empty(0), *(s.itl_s for s in samples)]) * 1e3,
    "e2e": lambda samples: np.array([s.e2e_s * 1e3 for s in samples]),
    "prefill_throughput": _prefill,
    "decode_throughput": lambda samples: 1e3 / _tpot_ms(samples),
}
