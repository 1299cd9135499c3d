"""A against B in turns."""

from __future__ import annotations

import itertools

import pytest

from labs_helpers import bench
from labs_helpers.bench.compare import Take
from labs_helpers.errors import LabsError
from tests.oracle.process import OracleProcess


async def test_sides_take_turns_and_the_first_of_a_pair_alternates() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> Take:
        async def take() -> float:
            order.append(name)
            return value

        return take

    await bench.compare({"a": side("a", 1.0), "b": side("b", 2.0)}, repeats=4, progress=False)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]


@pytest.mark.parametrize(("metric", "speedup"), [("output_throughput", 2.0), ("tpot", 0.5)])
async def test_above_one_is_better_whichever_way_the_metric_counts(metric: str, speedup: float) -> None:
    async def baseline() -> float:
        return 10.0

    async def candidate() -> float:
        return 20.0

    result = await bench.compare({"off": baseline, "on": candidate}, metric, repeats=3, progress=False)
    assert (result.speedup, result.spread.low, result.spread.high) == (speedup, speedup, speedup)
    assert result.is_clear
    m = result.measurement(engine="e", engine_version="1", machine="m")
    assert (m.metric, m.unit, m.value, m.n) == ("speedup", "x", speedup, 3)


async def test_a_difference_within_the_noise_is_not_clear() -> None:
    noise = itertools.cycle([9.0, 11.0, 12.0, 8.0, 10.0])

    async def take() -> float:
        return next(noise)

    result = await bench.compare({"a": take, "b": take}, repeats=5, progress=False)
    assert not result.is_clear
    assert result.spread.low <= result.speedup <= result.spread.high


async def test_runs_are_compared_and_give_their_provenance(oracle: OracleProcess) -> None:
    def side(gap_ms: float) -> Take:
        async def take() -> bench.Run:
            extra = {"oracle": {"gap_ms": gap_ms, "ttft_ms": 1.0}}
            return await bench.run(oracle.base_url, ["x"], output_tokens=10, extra=extra, warmup=False, progress=False)

        return take

    result = await bench.compare({"slow": side(40.0), "quick": side(2.0)}, "tpot", repeats=3, progress=False)
    assert result.is_clear and result.speedup > 1
    assert result.measurement().engine == "endpoint"
    assert "quick is" in str(result) and "3 pairs" in str(result)


@pytest.mark.parametrize(
    ("sides", "metric", "repeats", "said"),
    [
        (1, "tpot", 5, "two"),
        (2, "tpot", 2, "at least 3"),
        (2, "prompt_tokens", 5, "no better"),
        (2, "x", 5, "no better"),
    ],
)
async def test_comparisons_that_say_nothing_are_refused(sides: int, metric: str, repeats: int, said: str) -> None:
    async def take() -> float:
        return 1.0

    with pytest.raises(LabsError, match=said):
        await bench.compare({str(i): take for i in range(sides)}, metric, repeats=repeats, progress=False)


async def test_a_reading_of_nothing_is_refused() -> None:
    async def take() -> float:
        return 0.0

    with pytest.raises(LabsError, match="gave no output_throughput"):
        await bench.compare({"a": take, "b": take}, progress=False)
