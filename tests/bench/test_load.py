"""Closed and open loops: what is in flight when, and from when the clock counts."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from labs_helpers import bench
from labs_helpers.bench.client import clock
from labs_helpers.bench.load import arrivals, closed_loop, in_waves, make_plan, open_loop
from labs_helpers.bench.request import Request
from labs_helpers.bench.sample import Capture
from labs_helpers.errors import LabsError
from tests.oracle.process import MODEL, OracleProcess


class FakeServer:
    """Answers each request after `service_s`; remembers how many were in flight at a time."""

    def __init__(self, service_s: float = 0.002) -> None:
        self.service_s = service_s
        self.in_flight = self.most_in_flight = 0
        self.seen: list[tuple[object, float]] = []

    async def send(self, request: Request, due: float) -> Capture:
        sent = clock()
        self.seen.append((request.prompt, due))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.service_s)
        self.in_flight -= 1
        return Capture(due, sent, (clock(),), (1,), b"x")


REQUESTS = [Request(f"{i}") for i in range(20)]


@pytest.mark.parametrize("concurrency", [1, 4, 20, 64])
async def test_a_closed_loop_keeps_exactly_so_many_in_flight(concurrency: int) -> None:
    server = FakeServer()
    captures = await closed_loop(server.send, REQUESTS, concurrency)
    assert server.most_in_flight == min(concurrency, 20)
    assert len(captures) == 20
    assert [prompt for prompt, _ in server.seen] == [r.prompt for r in REQUESTS]


async def test_a_closed_loop_request_is_due_when_the_one_before_it_ended() -> None:
    captures = await closed_loop(FakeServer().send, REQUESTS, 1)
    assert [c.intended for c in captures[1:]] == [c.finished for c in captures[:-1]]


async def test_an_open_loop_waits_for_nobody() -> None:
    server = FakeServer(service_s=0.5)
    await open_loop(server.send, REQUESTS, np.full(20, 0.01))
    assert server.most_in_flight == 20


async def test_an_open_loop_request_is_due_at_its_scheduled_arrival() -> None:
    server, offsets = FakeServer(), arrivals(20, request_rate=400, seed=3)
    captures = await open_loop(server.send, REQUESTS, offsets)
    start = captures[0].intended
    assert [c.intended - start for c in captures] == pytest.approx(offsets.tolist(), abs=1e-9)
    assert all(c.sent >= c.intended for c in captures)


async def test_a_client_that_is_late_does_not_move_the_clock() -> None:
    """A blocked event loop delays the sending; the request is still counted from when it was due."""

    async def block() -> None:
        import time

        time.sleep(0.1)  # noqa: ASYNC251 - blocking is the point

    async def send(request: Request, due: float) -> Capture:
        sent = clock()
        if request.prompt == "0":
            await block()
        return Capture(due, sent, (clock(),), (1,), b"x")

    captures = await open_loop(send, REQUESTS[:3], [0.0, 0.01, 0.02])
    assert captures[2].intended - captures[0].intended == pytest.approx(0.02, abs=1e-9)
    assert captures[2].sent - captures[2].intended >= 0.07


def test_arrivals_are_seeded_and_have_the_asked_rate() -> None:
    a = arrivals(20_000, request_rate=50, seed=7)
    assert (a == arrivals(20_000, request_rate=50, seed=7)).all()
    assert (a != arrivals(20_000, request_rate=50, seed=8)).any()
    assert a[0] == 0 and (np.diff(a) >= 0).all()
    assert 20_000 / a[-1] == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_gamma_shape(burstiness: float) -> None:
    gaps = np.diff(arrivals(50_000, request_rate=10, burstiness=burstiness, seed=1))
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


@pytest.mark.parametrize(("rate", "burstiness"), [(0, 1), (-1, 1), (5, 0)])
def test_arrivals_need_a_rate(rate: float, burstiness: float) -> None:
    with pytest.raises(LabsError, match="above 0"):
        arrivals(5, rate, burstiness)


async def test_a_closed_loop_needs_a_stream() -> None:
    with pytest.raises(LabsError, match="at least one"):
        await closed_loop(FakeServer().send, REQUESTS, 0)


async def test_open_loop_ttft_holds_the_wait_in_the_servers_queue(one_slot_oracle: OracleProcess) -> None:
    """Coordinated omission: 30 ms of service, an arrival every 5 ms, one slot. The last of 20 requests cannot see its
    first token before 20 services have passed since the start, and its TTFT must say so. The same requests one after
    the other never queue."""
    endpoint = bench.Endpoint(one_slot_oracle.base_url, MODEL)
    work = [f"request {i}" for i in range(20)]
    common = {"output_tokens": 1, "warmup": False, "progress": False}
    offered = await bench.run(endpoint, work, request_rate=200, burstiness=100, **common)
    last = max(offered.samples, key=lambda s: s.intended)
    waited = 20 * 0.030 - (last.intended - offered.started)
    assert last.ttft_s >= waited > 0.3
    polite = await bench.run(endpoint, work, concurrency=1, **common)
    assert np.median(polite.values("ttft")) < np.median(offered.values("ttft"))


async def test_a_wave_waits_for_the_slowest_of_the_one_before() -> None:
    server = FakeServer()
    slow = {"3": 0.05, "9": 0.03}
    ended: dict[str, float] = {}

    async def send(request: Request, due: float) -> Capture:
        server.seen.append((request.prompt, due))
        sent = clock()
        await asyncio.sleep(slow.get(str(request.prompt), 0.001))
        ended[str(request.prompt)] = clock()
        return Capture(due, sent, (clock(),), (1,), b"x")

    captures = await in_waves(send, REQUESTS, 8)
    assert [prompt for prompt, _ in server.seen] == [r.prompt for r in REQUESTS]
    assert len(captures) == 20
    for first in (8, 16):
        before = max(ended[str(i)] for i in range(first - 8, first))
        assert min(c.sent for c in captures[first : first + 8]) >= before


async def test_a_wave_is_all_in_flight_at_once_and_no_more() -> None:
    server = FakeServer()
    await in_waves(server.send, REQUESTS, 8)
    assert server.most_in_flight == 8


def test_waves_have_a_size_and_no_rate() -> None:
    plan = make_plan(REQUESTS, None, 4, None, 1.0, 0, waves=True)
    assert (plan.arrival, plan.streams) == ("waves", 4)
    with pytest.raises(LabsError, match="not a request rate"):
        make_plan(REQUESTS, None, None, 2.0, 1.0, 0, waves=True)
