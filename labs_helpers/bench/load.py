"""Ways to offer requests: a fixed number in flight (closed loop), arrivals that wait for nobody (open loop), waves.

In a closed loop a slow server is offered less work, so its latencies look better than its users' would. In an open
loop requests keep arriving, and the clock of each starts at its scheduled arrival. A wave is sent when the slowest
request of the one before it has ended: what static batching does to a server that could do better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import numpy as np

from labs_helpers.bench.client import clock
from labs_helpers.bench.metrics import Floats
from labs_helpers.bench.request import Request
from labs_helpers.bench.sample import Capture
from labs_helpers.errors import LabsError

Send = Callable[[Request, float], Awaitable[Capture]]
"""Sends one request that was due at the given time on `clock`."""
Done = Callable[[Capture], None]

_TIMER_TICK_S = 0.001
"""The event loop rounds its timers up to whole milliseconds."""


@dataclass(frozen=True)
class Plan:
    """What is offered, and when: a closed loop of `streams` (or waves of so many), an open loop with `offsets`."""

    requests: tuple[Request, ...]
    streams: int = 1
    waves: bool = False
    offsets: Floats | None = None
    request_rate: float | None = None
    burstiness: float = 1.0
    repeats_prompts: bool = False

    async def offer(self, send: Send, done: Done) -> list[Capture]:
        """Send everything. Results are in the order of the requests."""
        if self.offsets is not None:
            return await open_loop(send, self.requests, self.offsets, done)
        if self.waves:
            return await in_waves(send, self.requests, self.streams, done)
        return await closed_loop(send, self.requests, self.streams, done)

    @property
    def arrival(self) -> Literal["closed", "open", "waves"]:
        """How the requests arrive, as `Load` names it."""
        if self.offsets is not None:
            return "open"
        return "waves" if self.waves else "closed"


def make_plan(
    offered: Sequence[Request],
    requests: int | None,
    concurrency: int | None,
    request_rate: float | None,
    burstiness: float,
    seed: int,
    waves: bool = False,
) -> Plan:
    """The plan for `requests` of the offered ones, in turns where there are fewer.

    Raises:
        LabsError: the numbers do not fit together.
    """
    if concurrency is not None and request_rate is not None:
        raise LabsError("a load has a concurrency or a request rate, not both", "leave one of them out")
    if waves and request_rate is not None:
        raise LabsError("waves have a size, not a request rate", "give the size of a wave as concurrency")
    n = len(offered) if requests is None else requests
    if n < 1:
        raise LabsError(f"requests is {n}", "send at least one request")
    if concurrency is not None and concurrency < 1:
        raise LabsError(f"concurrency is {concurrency}", "keep at least one request in flight")
    return Plan(
        requests=tuple(islice(cycle(offered), n)),
        streams=1 if concurrency is None else concurrency,
        waves=waves,
        offsets=None if request_rate is None else arrivals(n, request_rate, burstiness, seed),
        request_rate=request_rate,
        burstiness=burstiness,
        repeats_prompts=n > len(offered),
    )


async def closed_loop(
    send: Send, requests: Sequence[Request], concurrency: int, done: Done = lambda _: None
) -> list[Capture]:
    """Keep `concurrency` requests in flight until all are answered. Results are in the order of the requests.

    A request is due the moment the one before it in its stream ended.
    """
    if concurrency < 1:
        raise LabsError(f"concurrency is {concurrency}", "keep at least one request in flight")
    captures: list[Capture | None] = [None] * len(requests)
    waiting = iter(enumerate(requests))

    async def one_stream() -> None:
        due = clock()
        for i, request in waiting:
            captures[i] = capture = await send(request, due)
            due = capture.finished if capture.error is None else clock()
            done(capture)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(requests))):
            group.create_task(one_stream())
    return [c for c in captures if c is not None]


async def in_waves(send: Send, requests: Sequence[Request], size: int, done: Done = lambda _: None) -> list[Capture]:
    """Send `size` requests at once, wait until the last of them is answered, send the next ones.

    All requests of a wave are due when it begins.
    """
    captures: list[Capture] = []
    for first in range(0, len(requests), size):
        wave = requests[first : first + size]
        captures += await closed_loop(send, wave, len(wave), done)
    return captures


async def open_loop(
    send: Send, requests: Sequence[Request], offsets: Sequence[float] | Floats, done: Done = lambda _: None
) -> list[Capture]:
    """Send each request at its offset (seconds from now), whatever became of those before it."""
    captures: list[Capture | None] = [None] * len(requests)

    async def one_request(i: int, due: float) -> None:
        captures[i] = capture = await send(requests[i], due)
        done(capture)

    start = clock()
    async with asyncio.TaskGroup() as group:
        for i, offset in enumerate(offsets):
            await _sleep_until(start + float(offset))
            group.create_task(one_request(i, start + float(offset)))
    return [c for c in captures if c is not None]


def arrivals(n: int, request_rate: float, burstiness: float = 1.0, seed: int = 0) -> Floats:
    """`n` arrival times in seconds, the first at 0, at `request_rate` per second on average.

    Gaps are gamma distributed with shape `burstiness`: 1 is a Poisson process, below 1 arrivals come in bursts, above
    1 they come evenly.
    """
    if request_rate <= 0 or burstiness <= 0:
        raise LabsError(f"request_rate is {request_rate} and burstiness is {burstiness}", "both must be above 0")
    gaps = np.random.default_rng(seed).gamma(burstiness, 1.0 / (request_rate * burstiness), size=max(n - 1, 0))
    return np.concatenate(([0.0], np.cumsum(gaps)))[:n]


async def _sleep_until(due: float) -> None:
    """Wait for `due` on `clock`: sleep to the last timer tick before it, then yield until it is there."""
    while (left := due - clock()) > 0:  # noqa: ASYNC110 - nothing to wait for but time
        await asyncio.sleep(left - _TIMER_TICK_S if left > _TIMER_TICK_S else 0)
