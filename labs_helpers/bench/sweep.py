"""A sweep over loads: what more work costs each user, and where it stops paying (the knee)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labs_helpers.bench import metrics
from labs_helpers.bench.report import Limits, Run
from labs_helpers.bench.request import Request
from labs_helpers.bench.runner import run
from labs_helpers.errors import LabsError
from labs_helpers.results import Measurement

if TYPE_CHECKING:
    from labs_helpers.bench.target import Endpoint
    from labs_helpers.engines.base import Server

Work = Callable[[int, str], Sequence[Request]]
"""(n, seed) -> n requests that no other seed gives, so that no prefix cache can help."""
ENOUGH = 0.9
"""Share of the requests that must meet the limits before a rate counts as served."""
FEWEST = 12
"""Requests of a load, at least."""


@dataclass(frozen=True)
class Sweep:
    """Loads of one sweep, in the order in which they ran."""

    closed: tuple[Run, ...] = ()
    """Closed loops, by concurrency."""
    open: tuple[Run, ...] = ()
    """Open loops at different request rates, the probes."""

    @property
    def knee(self) -> Run | None:
        """The probe with the highest goodput among those in which 9 of 10 requests met the limits; of equal ones that
        with the lowest rate. None when there is no such probe."""
        served = [probe for probe in self.open if share_met(probe) >= ENOUGH]
        return min(served, key=lambda probe: (-goodput(probe), probe.load.request_rate or 0), default=None)

    def points(self) -> list[tuple[float, float, list[tuple[float | None, float | None]]]]:
        """(request rate, seconds of arrivals, (TTFT ms, TPOT ms) of each request) of every probe; TTFT is None for one
        that failed, TPOT for an answer of a single event."""
        return [
            (
                float(probe.load.request_rate or 0),
                arrivals_s(probe),
                [
                    (None, None)
                    if sample.error is not None
                    else (sample.ttft_s * 1e3, None if sample.tpot_s is None else sample.tpot_s * 1e3)
                    for sample in probe.samples
                ],
            )
            for probe in self.open
        ]

    def measurements(self, *only: str) -> list[Measurement]:
        """The records of every run; a probe's goodput is over the time of its arrivals, its spread over requests."""
        found = [m for one in self.closed for m in one.measurements(*only)]
        for probe in self.open:
            found += [m for m in probe.measurements(*only) if m.metric != "goodput"]
            if not only or "goodput" in only:
                met = [(probe.limits or Limits()).met_by(sample) / arrivals_s(probe) for sample in probe.samples]
                spread = metrics.bootstrap95(met, lambda rows: rows.sum(axis=-1))
                found.append(probe.measurement("goodput", goodput(probe), n=len(met), spread=spread))
        return found


async def sweep(
    server: Server | Endpoint | str,
    work: Work,
    *,
    concurrency: Sequence[int] = (),
    requests_per_stream: float = 4,
    limits: Limits | None = None,
    probes: int = 0,
    probe_s: float = 6.0,
    ceiling: float | None = None,
    burstiness: float = 1.0,
    workload: str = "",
    warmup: bool = True,
    **arguments: Any,
) -> Sweep:
    """Offer a workload at several concurrencies (closed loop), then find its knee with a few probes (open loop).

    The knee is the highest request rate that the server carries while requests meet the limits. It lies below the
    throughput of a saturated closed loop, so the probes halve the interval from 0 to there: upwards after a rate at
    which 9 of 10 requests met the limits, downwards otherwise.

    Args:
        work: makes the requests of each load; called with how many, and with a seed.
        concurrency: streams of each closed loop.
        requests_per_stream: length of a closed loop; at least 12 requests are sent.
        limits: what a request must meet; needed for probes.
        probes: open loops, 0 for none.
        probe_s: arrivals of a probe last about so long.
        ceiling: requests per second that are surely too many; by default one and a half times the best of the closed
            loops, which are not full when they begin and when they end.
        burstiness: gamma shape of the arrivals; 1 is Poisson.
        arguments: further ones of `run`, for every load.

    Raises:
        LabsError: probes without limits or without a ceiling; and what `run` raises.
    """
    if probes and limits is None:
        raise LabsError("a knee needs limits", "e.g. limits=Limits(ttft_ms=500, tpot_ms=50)")
    if probes and not (ceiling or concurrency):
        raise LabsError("the probes have no ceiling", "give concurrency levels, or ceiling= in requests per second")
    common: dict[str, Any] = {"workload": workload, "limits": limits, **arguments}
    closed: list[Run] = []
    for streams in concurrency:
        offered = work(max(FEWEST, round(requests_per_stream * streams)), f"{workload}/closed/{streams}")
        closed.append(await run(server, offered, concurrency=streams, warmup=warmup and not closed, **common))
    low, high = 0.0, ceiling or 1.5 * max((len(one.good) / one.duration_s for one in closed), default=0.0)
    probed: list[Run] = []
    for number in range(probes):
        rate = (low + high) / 2
        offered = work(max(FEWEST, round(rate * probe_s)), f"{workload}/open/{number}")
        first = warmup and not closed and not probed
        probe = await run(
            server, offered, request_rate=rate, burstiness=burstiness, seed=number, warmup=first, **common
        )
        probed.append(probe)
        low, high = (rate, high) if share_met(probe) >= ENOUGH else (low, rate)
    return Sweep(tuple(closed), tuple(probed))


def share_met(probe: Run) -> float:
    """Share of the requests that met the run's limits."""
    limits = probe.limits or Limits()
    return sum(map(limits.met_by, probe.samples)) / len(probe.samples)


def arrivals_s(probe: Run) -> float:
    """Seconds in which the requests of an open loop arrive at its rate. Its last answers end later, and how much later
    says more about the length of the probe than about the server."""
    return len(probe.samples) / (probe.load.request_rate or 1)


def goodput(probe: Run) -> float:
    """Requests per second of arrivals that met the run's limits."""
    return share_met(probe) * len(probe.samples) / arrivals_s(probe)
