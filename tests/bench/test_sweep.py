"""The sweep: which loads it offers, and what it makes of them."""

from __future__ import annotations

import pytest

from labs_helpers import bench
from labs_helpers.bench.sweep import share_met
from labs_helpers.errors import LabsError
from tests.oracle.process import MODEL, OracleProcess

EASY = bench.Limits(ttft_ms=10_000)
IMPOSSIBLE = bench.Limits(ttft_ms=0.001)


def work(n: int, seed: str) -> list[bench.Request]:
    return [bench.Request(f"{seed}/{i}", max_tokens=4) for i in range(n)]


def endpoint(oracle: OracleProcess) -> bench.Endpoint:
    return bench.Endpoint(oracle.base_url, MODEL)


async def test_closed_loops_then_probes_that_halve_the_interval_upwards(oracle: OracleProcess) -> None:
    taken = await bench.sweep(
        endpoint(oracle), work, concurrency=(1, 4), limits=EASY, probes=3, probe_s=0.1, ceiling=80.0, progress=False
    )
    assert [run.load.concurrency for run in taken.closed] == [1, 4]
    assert [run.load.request_rate for run in taken.open] == [40.0, 60.0, 70.0]
    assert all(run.load.arrival == "open" for run in taken.open)
    assert all(share_met(run) == 1 for run in taken.open)
    assert len(taken.measurements("goodput")) == 5


async def test_probes_go_down_when_the_limits_are_missed_and_then_there_is_no_knee(oracle: OracleProcess) -> None:
    taken = await bench.sweep(
        endpoint(oracle), work, limits=IMPOSSIBLE, probes=3, probe_s=0.1, ceiling=80.0, progress=False
    )
    assert [run.load.request_rate for run in taken.open] == [40.0, 20.0, 10.0]
    assert taken.knee is None


async def test_no_prompt_is_sent_twice(oracle: OracleProcess) -> None:
    await bench.sweep(
        endpoint(oracle), work, concurrency=(1, 2), limits=EASY, probes=2, probe_s=0.1, ceiling=60.0, progress=False
    )
    prompts = [truth["body"]["prompt"] for truth in oracle.truths()]
    assert len(prompts) == len(set(prompts))


async def test_the_knee_is_the_probe_with_the_highest_goodput_and_points_say_the_same(oracle: OracleProcess) -> None:
    taken = await bench.sweep(endpoint(oracle), work, limits=EASY, probes=3, probe_s=0.2, ceiling=80.0, progress=False)
    best = max(taken.open, key=bench.goodput)
    assert taken.knee is best
    for (rate, seconds, requests), run in zip(taken.points(), taken.open, strict=True):
        assert rate == run.load.request_rate
        met = sum(ttft is not None and ttft <= EASY.ttft_ms for ttft, _ in requests)
        assert met / seconds == pytest.approx(bench.goodput(run))
        assert seconds == pytest.approx(len(requests) / rate), "the drain at the end is not counted"
        (recorded,) = [m for m in taken.measurements("goodput") if m.load == run.load]
        assert recorded.value == pytest.approx(bench.goodput(run))
        assert recorded.spread.low == pytest.approx(recorded.value), "all were in time, so no resample differs"


async def test_a_failed_request_is_no_point_and_no_goodput(oracle: OracleProcess) -> None:
    def half_broken(n: int, seed: str) -> list[bench.Request]:
        broken = {"oracle": {"fault": "http500"}}
        return [bench.Request(f"{seed}/{i}", max_tokens=4, extra=broken if i % 2 else {}) for i in range(n)]

    taken = await bench.sweep(
        endpoint(oracle), half_broken, limits=EASY, probes=1, probe_s=0.1, ceiling=80.0, warmup=False, progress=False
    )
    ((_, _, requests),) = taken.points()
    assert requests.count((None, None)) == len(requests) // 2
    assert share_met(taken.open[0]) == 0.5
    assert taken.knee is None, "goodput alone is no knee: half of the users were not served"


async def test_probes_need_limits_and_a_ceiling(oracle: OracleProcess) -> None:
    with pytest.raises(LabsError, match="needs limits"):
        await bench.sweep(endpoint(oracle), work, probes=2, ceiling=10.0)
    with pytest.raises(LabsError, match="no ceiling"):
        await bench.sweep(endpoint(oracle), work, probes=2, limits=EASY)
