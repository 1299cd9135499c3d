"""Predictions of a prefix cache: word by word the rule, with and without pressure, and in every order."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.bench import RadixTree, longest_prefix_first, predict_cached, prediction_error, simulate
from labs_helpers.bench.prefix_cache import last_request_only, one_prefix, pages, shared
from labs_helpers.errors import LabsError
from labs_helpers.grading.hidden.lab_3_3_2 import cached as word_by_word

TOKENS = st.lists(st.integers(0, 2), max_size=10)
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=10)
TRACES = st.lists(st.tuples(PROMPTS, TOKENS).map(list), max_size=12)


@settings(max_examples=300)
@given(TRACES, st.integers(1, 5))
def test_the_prediction_is_the_rule_word_by_word(trace, page_size):
    assert predict_cached(trace, page_size) == word_by_word(trace, page_size)


@given(TRACES, st.integers(1, 4))
def test_a_cache_that_never_fills_up_is_simulated_as_predicted(trace, page_size):
    assert simulate(RadixTree(), trace, 10_000, page_size) == predict_cached(trace, page_size)


@given(TRACES, st.integers(20, 40))
def test_under_pressure_no_request_saves_more_and_the_cache_never_overflows(trace, capacity):
    tree = RadixTree()
    found = simulate(tree, trace, capacity)
    assert all(a <= b for a, b in zip(found, predict_cached(trace), strict=True))
    assert tree.held <= capacity


def test_a_request_larger_than_the_cache_is_an_error():
    with pytest.raises(LabsError, match="a request of 12 tokens does not fit into a cache of 8"):
        simulate(RadixTree(), [(list(range(10)), [1, 2])], 8)


def test_popular_prefixes_survive_and_rare_ones_go():
    popular, rare = [1] * 10, [[n] * 10 for n in range(2, 6)]
    trace = [([*prefix, 90 + i], []) for r in rare for i, prefix in enumerate((popular, r))]
    found = simulate(RadixTree(), trace, 35)
    assert found == [0, 0, 10, 0, 10, 0, 10, 0]


@given(st.lists(TOKENS, min_size=1, max_size=6))
def test_no_order_shares_more_between_neighbours(prompts):
    def total(order: Any) -> int:
        return sum(shared(prompts[a], prompts[b]) for a, b in itertools.pairwise(order))

    chosen = longest_prefix_first(prompts)
    assert sorted(chosen) == list(range(len(prompts)))
    assert total(chosen) == max(map(total, itertools.permutations(range(len(prompts)))))


def test_simpler_caches_save_less_than_a_tree():
    prompts = [[1, 2, 5], [1, 3, 5], [1, 2, 6], [1, 3, 6]]
    assert one_prefix(prompts) == 3
    assert last_request_only(prompts) == 3
    assert sum(predict_cached([(p, []) for p in prompts])) == 5


def test_pages_are_full_or_not_there():
    assert pages([1, 2, 3, 4, 5], 2) == [(1, 2), (3, 4)]
    assert pages([1], 2) == []


def a_run(*cached: int | None) -> Any:
    """As much of a `Run` as the prediction looks at."""
    return SimpleNamespace(
        engine="vllm",
        samples=[SimpleNamespace(cached_tokens=n, error=None) for n in cached],
        measurement=lambda metric, value, n: (metric, value, n),
    )


def test_the_worst_request_counts_in_pages():
    assert prediction_error(a_run(0, 128, 256), [0, 0, 256], 128) == ("cache_prediction_error", 1.0, 3)


def test_a_prediction_for_other_requests_is_refused():
    with pytest.raises(LabsError, match="1 predictions for 2 requests"):
        prediction_error(a_run(0, 1), [0])
    with pytest.raises(LabsError, match="does not say how many"):
        prediction_error(a_run(0, None), [0, 0])
