"""Lab 3.3.1, Engine Benchmark: what it needs, must measure and asks."""

from __future__ import annotations

from labs_helpers.exercises import Case, equals, raises
from labs_helpers.syllabus import LabSpec
from labs_helpers.syllabus.requirements import concurrencies_measured, engines_measured, none_failed, witnessed

CONCURRENCY = (1, 4, 16)

PERCENTILE = (
    Case("the median of three", equals(20.0), ([30.0, 10.0, 20.0], 50)),
    Case("between two samples, interpolate", equals(2.5), ([1.0, 2.0, 3.0, 4.0], 50)),
    Case("P90 of eleven", equals(9.0), ([float(i) for i in range(11)], 90)),
    Case("P99 of twelve samples is noise", raises("ValueError"), ([float(i) for i in range(12)], 99)),
    Case("no samples at all", raises("ValueError"), ([], 50)),
)

TPOT = (
    Case("one token per event", equals(0.02), ([[0.20, 1], [0.22, 1], [0.24, 1]], 3)),
    Case("four tokens per event", equals(0.02), ([[0.20, 4], [0.28, 4], [0.36, 4]], 12)),
    Case("an early event with the role only", equals(0.02), ([[0.01, 0], [0.20, 1], [0.22, 1], [0.24, 1]], 3)),
    Case("the only token came with the first event", equals(None), ([[0.20, 1]], 1)),
)

ROOFLINE = (
    Case("8 GB of weights, no context", equals(34.125), (273.0, 8e9, 1.0, 0, 0)),
    Case("the same weights in bf16", equals(17.0625), (273.0, 8e9, 2.0, 0, 0)),
    Case("a long context is read for every token too", equals(100.0), (100.0, 5e8, 1.0, 250_000, 2000)),
)

GOODPUT = (
    Case(
        "two of three meet both limits",
        equals(0.2),
        ([{"ttft": 0.1, "tpot": 0.02}, {"ttft": 0.1, "tpot": 0.02}, {"ttft": 0.9, "tpot": 0.02}], 10.0, 0.5, 0.05),
    ),
    Case(
        "a failed request has no TTFT and meets nothing",
        equals(0.1),
        ([{"ttft": 0.1, "tpot": 0.02}, {"ttft": None, "tpot": None}], 10.0, 0.5, 0.05),
    ),
    Case("exactly at the limit counts", equals(1.0), ([{"ttft": 0.5, "tpot": 0.05}], 1.0, 0.5, 0.05)),
)

RANK = (
    Case(
        "one metric, lower is better",
        equals([["b", 1.0], ["a", 0.5]]),
        ({"a": {"ttft": 20.0}, "b": {"ttft": 10.0}}, {"ttft": 1}, ["ttft"]),
    ),
    Case(
        "two metrics, weighted",
        equals([["b", 0.875], ["a", 0.625]]),
        ({"a": {"ttft": 20.0, "tput": 100.0}, "b": {"ttft": 10.0, "tput": 50.0}}, {"ttft": 3, "tput": 1}, ["ttft"]),
    ),
    Case(
        "what was not measured scores nothing",
        equals([["a", 1.0], ["b", 0.5]]),
        ({"a": {"ttft": 10.0, "tput": 5.0}, "b": {"ttft": 10.0}}, {"ttft": 1, "tput": 1}, ["ttft"]),
    ),
)

SPEC = LabSpec(
    id="3.3.1",
    title="Engine Benchmark",
    engines=("transformers", "llama.cpp", "vllm", "ollama", "sglang", "tensorrt-llm"),
    requirements=(
        engines_measured("startup_time", 3),
        engines_measured("memory", 3),
        engines_measured("ttft", 3),
        engines_measured("prefill_throughput", 3),
        engines_measured("decode_throughput", 3),
        concurrencies_measured("output_throughput", CONCURRENCY, 3),
        witnessed("completion_tokens", 0.02, 3),
        none_failed(),
    ),
    cases={"percentile": PERCENTILE, "tpot": TPOT, "roofline": ROOFLINE, "goodput": GOODPUT, "rank": RANK},
)
