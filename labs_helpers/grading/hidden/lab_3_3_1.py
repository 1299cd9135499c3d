"""Hidden cases of lab 3.3.1: what the visible ones leave open."""

from __future__ import annotations

from typing import Any

from labs_helpers.exercises import Case, equals, holds, raises

SKEWED = [0.021, 0.019, 0.020, 0.480, 0.022, 0.018, 0.020, 0.021, 0.019, 0.350]
HUNDRED = [float((i * 37) % 100) for i in range(100)]

PERCENTILE = (
    Case("unsorted samples, P90 of ten", equals(0.363), (SKEWED, 90)),
    Case("P99 of exactly one hundred samples", equals(98.01), (HUNDRED, 99)),
    Case("P99 of ninety-nine samples is one too few", raises("ValueError"), (HUNDRED[:99], 99)),
    Case("P0 is the smallest", equals(0.018), (SKEWED, 0)),
    Case("one sample has a P0 and no median", raises("ValueError"), ([4.0], 50)),
    Case("all samples equal", equals(7.0), ([7.0] * 20, 95)),
    Case("negative samples keep their order", equals(-1.5), ([-1.0, -3.0, -2.0, -1.0], 50)),
    Case("a fraction of a percent", equals(1.5), ([float(i) for i in range(201)], 0.75)),
)

TPOT = (
    Case("a first event that carries several tokens", equals(0.1 / 6), ([[1.0, 3], [1.05, 2], [1.1, 4]], 9)),
    Case("usage counts more tokens than the events show", equals(0.01), ([[0.5, 1], [0.55, 1], [0.6, 1]], 11)),
    Case("empty events in the middle", equals(0.03), ([[0.2, 1], [0.21, 0], [0.22, 0], [0.26, 2]], 3)),
    Case("a late start does not matter", equals(0.02), ([[1000.2, 1], [1000.22, 1], [1000.24, 1]], 3)),
    Case("only empty events", equals(None), ([[0.01, 0], [0.02, 0]], 0)),
    Case("no events at all", equals(None), ([], 0)),
    Case("everything came at once", equals(None), ([[0.3, 0], [0.4, 16]], 16)),
)

ROOFLINE = (
    Case("4-bit weights are half a byte", equals(68.25), (273.0, 8e9, 0.5, 0, 0)),
    Case("context without its bytes changes nothing", equals(17.0625), (273.0, 8e9, 2.0, 0, 4096)),
    Case("bytes without context change nothing", equals(17.0625), (273.0, 8e9, 2.0, 131_072, 0)),
    Case("a 13M model in fp32", equals(20e9 / 52e6), (20.0, 13e6, 4.0)),
    Case("KV cache larger than the weights", equals(1.0), (4.0, 1e9, 1.0, 1_000_000, 3000)),
)

GOODPUT = (
    Case("nobody met the limits", equals(0.0), ([{"ttft": 2.0, "tpot": 0.5}], 10.0, 0.5, 0.05)),
    Case("no requests", equals(0.0), ([], 10.0, 0.5, 0.05)),
    Case("only one of the two limits met", equals(0.0),
         ([{"ttft": 0.1, "tpot": 0.9}, {"ttft": 0.9, "tpot": 0.01}], 5.0, 0.5, 0.05)),
    Case("a TTFT of zero is a TTFT", equals(0.5), ([{"ttft": 0.0, "tpot": 0.0}], 2.0, 0.5, 0.05)),
    Case("it is a rate, not a share", equals(8.0), ([{"ttft": 0.1, "tpot": 0.01}] * 4, 0.5, 0.5, 0.05)),
    Case("failed ones among many", equals(1.0),
         ([{"ttft": 0.1, "tpot": 0.01}, {"ttft": None, "tpot": None}] * 3, 3.0, 0.5, 0.05)),
)  # fmt: skip


def _ranked(names: list[str]) -> Any:
    """Totals fall, and every engine is there once."""

    def rule(value: Any) -> str:
        if sorted(row[0] for row in value) != sorted(names):
            return "not every engine is ranked exactly once"
        totals = [row[1] for row in value]
        if totals != sorted(totals, reverse=True):
            return "the totals do not fall"
        return "" if all(-1e-9 <= total <= 1 + 1e-9 for total in totals) else "a total lies outside 0 to 1"

    return holds(rule)


RANK = (
    Case("higher is better", equals([["fast", 1.0], ["slow", 0.25]]),
         ({"slow": {"tput": 25.0}, "fast": {"tput": 100.0}}, {"tput": 2}, [])),
    Case("equal totals by name", equals([["alpha", 1.0], ["beta", 1.0]]),
         ({"beta": {"ttft": 5.0}, "alpha": {"ttft": 5.0}}, {"ttft": 1}, ["ttft"])),
    Case("a metric nobody was asked about does not count", equals([["a", 1.0], ["b", 0.5]]),
         ({"a": {"ttft": 10.0, "memory": 9e9}, "b": {"ttft": 20.0, "memory": 1.0}}, {"ttft": 1}, ["ttft", "memory"])),
    Case("a metric nobody measured", equals([["a", 0.5], ["b", 0.5]]),
         ({"a": {"ttft": 10.0}, "b": {"ttft": 10.0}}, {"ttft": 1, "goodput": 1}, ["ttft"])),
    Case("one engine alone", equals([["only", 1.0]]), ({"only": {"ttft": 3.0}}, {"ttft": 5}, ["ttft"])),
    Case("names in any script", equals([["Größe 引擎", 1.0], ["Ω", 0.5]]),
         ({"Ω": {"tput": 1.0}, "Größe 引擎": {"tput": 2.0}}, {"tput": 1}, [])),
    Case("many engines, many metrics", _ranked(["a", "b", "c", "d"]),
         ({"a": {"ttft": 12.0, "tput": 80.0}, "b": {"ttft": 9.0, "tput": 300.0, "memory": 70.0},
           "c": {"tput": 150.0, "memory": 40.0}, "d": {"ttft": 30.0}},
          {"ttft": 3, "tput": 2, "memory": 1}, ["ttft", "memory"])),
)  # fmt: skip

CASES = {"percentile": PERCENTILE, "tpot": TPOT, "roofline": ROOFLINE, "goodput": GOODPUT, "rank": RANK}
