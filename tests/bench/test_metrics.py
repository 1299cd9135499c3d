"""Each definition of the measuring rules, as a claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labs_helpers.bench import metrics
from labs_helpers.bench.metrics import Event
from labs_helpers.errors import LabsError

latencies = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=300)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    gaps = draw(st.lists(st.floats(0, 5), min_size=1, max_size=60))
    tokens = draw(st.lists(st.integers(0, 6), min_size=len(gaps), max_size=len(gaps)))
    times = 100 + np.cumsum(gaps)
    return [Event(float(t), max(n, 1) if i == 0 else n) for i, (t, n) in enumerate(zip(times, tokens, strict=True))]


def exact_stream(tokens: int = 33, per_event: int = 4, ttft: float = 0.2, gap: float = 0.02) -> list[Event]:
    """One token in the first event, then `per_event` in each; a token every `gap` seconds."""
    events, done = [Event(ttft, 1)], 1
    while done < tokens:
        n = min(per_event, tokens - done)
        done += n
        events.append(Event(ttft + (done - 1) * gap, n))
    return events


@pytest.mark.parametrize("per_event", [1, 4, 7])
def test_tpot_does_not_depend_on_tokens_per_event(per_event: int) -> None:
    events = exact_stream(per_event=per_event)
    assert metrics.ttft(0.0, events) == pytest.approx(0.2)
    assert metrics.tpot(events, 33, events[-1].time) == pytest.approx(0.02)


def test_tpot_leaves_out_all_tokens_of_the_first_event() -> None:
    events = [Event(1.0, 5), Event(2.0, 10)]
    assert metrics.tpot(events, 15, 2.0) == pytest.approx(0.1)


def test_tpot_counts_a_last_token_that_shows_no_text() -> None:
    events = [Event(1.0, 1), Event(1.1, 1)]
    assert metrics.tpot(events, 3, 1.2) == pytest.approx(0.1)


def test_there_is_no_tpot_when_the_first_event_carried_everything() -> None:
    assert metrics.tpot([Event(1.0, 4)], 4, 1.0) is None
    assert metrics.tpot([], 4, 1.0) is None


def test_ttft_counts_from_the_intended_send_time() -> None:
    assert metrics.ttft(10.0, [Event(12.5, 1)]) == 2.5


def test_there_is_no_ttft_without_content() -> None:
    with pytest.raises(LabsError, match="without content"):
        metrics.ttft(0.0, [])


@given(streams())
def test_itl_lasts_from_the_first_event_to_the_last(events: list[Event]) -> None:
    assert metrics.itl(events).sum() == pytest.approx(events[-1].time - events[0].time, abs=1e-9)
    assert (metrics.itl(events) >= 0).all()


@given(streams())
def test_itl_has_one_gap_per_token_after_the_first_event(events: list[Event]) -> None:
    later = sum(e.tokens for e in events[1:])
    extra = len(metrics.itl(events)) - later
    assert extra in (0, 1)  # 1: a gap that ends in an event without tokens
    if events[-1].tokens > 0:
        assert extra == 0


@given(streams())
def test_mean_itl_is_tpot_when_the_last_event_has_content(events: list[Event]) -> None:
    total = sum(e.tokens for e in events)
    tpot = metrics.tpot(events, total, events[-1].time)
    if tpot is not None and events[-1].tokens > 0:
        assert metrics.itl(events).mean() == pytest.approx(tpot, abs=1e-9)


def test_itl_spreads_a_gap_over_the_tokens_it_carried() -> None:
    assert metrics.itl([Event(0, 1), Event(4, 4), Event(5, 1)]).tolist() == [1, 1, 1, 1, 1]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(0, 400), st.booleans())
def test_spreading_loses_no_token(chars: list[int], total: int, hidden_end: bool) -> None:
    tokens = metrics.spread_tokens(chars, total, hidden_end=hidden_end)
    assert len(tokens) == len(chars)
    assert min(tokens) >= 0
    shown = total - 1 if hidden_end and total == len(chars) + 1 else total
    assert sum(tokens) == shown
    if total > 0:
        assert tokens[0] >= 1


def test_spreading_follows_characters() -> None:
    assert metrics.spread_tokens([4, 16, 16], 9) == (1, 4, 4)
    assert metrics.spread_tokens([1, 99], 2) == (1, 1)


many = arrays(np.float64, st.integers(100, 300), elements=st.floats(-1e6, 1e6))


@given(many, st.floats(1, 99))
def test_a_percentile_lies_within_the_samples(values: metrics.Floats, q: float) -> None:
    assert min(values) <= metrics.percentile(values, q) <= max(values)


@given(many, st.floats(1, 99), st.floats(1, 99))
def test_percentiles_rise_with_q(values: metrics.Floats, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert metrics.percentile(values, low) <= metrics.percentile(values, high) + 1e-6


@pytest.mark.parametrize(("q", "needed"), [(50, 2), (90, 10), (95, 20), (99, 100), (1, 100), (99.9, 1000)])
def test_a_percentile_refuses_too_few_samples(q: float, needed: int) -> None:
    metrics.percentile(range(needed), q)
    with pytest.raises(LabsError, match=f"needs at least {needed}"):
        metrics.percentile(range(needed - 1), q)


def test_p99_of_few_samples_is_reported_as_the_maximum_and_says_so() -> None:
    assert metrics.percentile_or_max([1, 7, 3], 99) == (7, "max of 3", 3)
    assert metrics.percentile_or_max(list(range(100)), 99).label == "P99"


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_no_statistic_is_made_of_nothing(values: list[float]) -> None:
    for statistic in (metrics.median, metrics.iqr, metrics.bootstrap95):
        with pytest.raises(LabsError):
            statistic(values)


def test_there_is_no_percentile_beyond_100() -> None:
    with pytest.raises(LabsError, match="between 0 and 100"):
        metrics.percentile([1, 2, 3], 101)


@given(latencies)
def test_iqr_holds_the_median(values: list[float]) -> None:
    spread = metrics.iqr(values)
    assert min(values) <= spread.low <= metrics.median(values) <= spread.high <= max(values)


def test_bootstrap_is_seeded_and_narrows_with_more_samples() -> None:
    noise = np.random.default_rng(1).normal(10, 2, 2000)
    few, many = metrics.bootstrap95(noise[:20]), metrics.bootstrap95(noise)
    assert metrics.bootstrap95(noise) == many
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.low < noise.mean() < many.high


def test_goodput_counts_requests_that_met_everything() -> None:
    assert metrics.goodput([True, False, True, True], 2.0) == 1.5


def test_acceptance_length_counts_the_token_every_step_brings() -> None:
    assert metrics.acceptance_length(accepted=90, drafts=30) == 4
    assert metrics.acceptance_length(accepted=0, drafts=30) == 1
    with pytest.raises(LabsError, match="no drafts"):
        metrics.acceptance_length(0, 0)
