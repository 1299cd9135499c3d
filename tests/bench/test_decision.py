"""The decision table: which figure speaks for an engine, and how engines are ranked by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.bench import decision_table, rank
from labs_helpers.results import Load, Measurement


def figure(metric, value, engine="vllm", **load):
    return Measurement(
        metric=metric, value=value, engine=engine, n=1, engine_version="1", machine="m", load=Load(**load)
    )


def test_latency_and_throughput_count_at_the_asked_concurrency():
    rows = [figure("ttft", float(c), concurrency=c, output_tokens=32) for c in (1, 4, 16)]
    assert decision_table(rows, at_concurrency=4) == {"vllm": {"ttft": 4.0}}


def test_prefill_counts_at_the_longest_prompt_and_decode_at_one_stream():
    rows = [figure("prefill_throughput", n, prompt_tokens=n) for n in (64, 1024, 256)]
    rows += [figure("decode_throughput", 100 / c, concurrency=c) for c in (1, 4)]
    assert decision_table(rows, 4)["vllm"] == {"prefill_throughput": 1024, "decode_throughput": 100}


def test_a_roofline_is_nobodys_achievement():
    assert decision_table([figure("roofline", 600, engine="memory"), figure("bandwidth", 30, engine="memory")], 4) == {}


def test_a_metric_taken_elsewhere_only_is_not_in_the_table():
    assert decision_table([figure("ttft", 1.0, concurrency=16)], 4)["vllm"] == {}


table = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.sampled_from(["ttft", "output_throughput"]), st.floats(0.1, 1e4), min_size=1),
    min_size=1,
)
weights = st.dictionaries(st.sampled_from(["ttft", "output_throughput"]), st.integers(1, 9), min_size=1)


@given(table, weights)
def test_scores_are_between_0_and_1_best_first_and_every_engine_is_ranked(engines, wanted):
    rows = rank(engines, wanted)
    scores = [score for _, score in rows]
    assert sorted(name for name, _ in rows) == sorted(engines)
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in scores)


@given(table, weights, st.floats(0.1, 10))
def test_units_do_not_matter(engines, wanted, scale):
    """Seconds or milliseconds: the same scores."""
    scaled = {name: {metric: value * scale for metric, value in row.items()} for name, row in engines.items()}
    for (_, one), (_, other) in zip(sorted(rank(engines, wanted)), sorted(rank(scaled, wanted)), strict=True):
        assert one == pytest.approx(other)
