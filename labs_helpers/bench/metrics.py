"""The definitions, as pure functions over what a client saw. Times in and out are seconds.

| metric | definition |
|---|---|
| TTFT | intended send time to the first event with content |
| TPOT | (E2E - TTFT) / (completion tokens - tokens in the first content event) |
| ITL | gaps between content events, each spread over the tokens the event carried |
| E2E | intended send time to the last event |

The intended send time is the scheduled arrival: a client that starts its clock only when it gets round to sending
hides the time a request waited (coordinated omission).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labs_helpers.errors import LabsError
from labs_helpers.results import Spread

Floats = npt.NDArray[np.float64]


class Event(NamedTuple):
    """One content event of a stream."""

    time: float
    """Arrival, seconds on the client's monotonic clock."""
    tokens: int
    """Tokens it carried; 0 is possible where a server sends held-back text."""


class Percentile(NamedTuple):
    """A percentile, or the maximum where there were too few samples for one."""

    value: float
    label: str
    n: int


def ttft(intended: float, events: Sequence[Event]) -> float:
    """Time to first token.

    Raises:
        LabsError: no event had content, so there was no first token.
    """
    if not events:
        raise LabsError("a stream without content has no time to first token", "look at Sample.error")
    return events[0].time - intended


def e2e(intended: float, end: float) -> float:
    """End-to-end latency; `end` is the arrival of the last event of any kind."""
    return end - intended


def tpot(events: Sequence[Event], completion_tokens: int, end: float) -> float | None:
    """Time per output token after the first event, or None when the first event carried them all.

    The tokens of the first event were paid for in TTFT. `completion_tokens` comes from the server's usage: events are
    not tokens, and an end-of-sequence token costs a step but shows no text.
    """
    if not events:
        return None
    after_first = completion_tokens - events[0].tokens
    return (end - events[0].time) / after_first if after_first > 0 else None


def itl(events: Sequence[Event]) -> Floats:
    """Inter-token latencies: one per token after the first event; together they last from first to last event.

    A gap before an event without tokens belongs to the next event that has some.
    """
    gaps: list[float] = []
    waited = 0.0
    for before, event in pairwise(events):
        waited += event.time - before.time
        if event.tokens > 0:
            gaps.extend([waited / event.tokens] * event.tokens)
            waited = 0.0
    if waited > 0:
        gaps.append(waited)
    return np.asarray(gaps, dtype=np.float64)


def spread_tokens(chars: Sequence[int], completion_tokens: int, *, hidden_end: bool = False) -> tuple[int, ...]:
    """Tokens per content event where the server does not say: in proportion to characters, none lost.

    One token per event where the numbers match (also with `hidden_end`, an end-of-sequence token that no event shows).
    Else the largest remainder decides, and an event that got none takes one from the event with most, as long as there
    are as many tokens as events; with fewer (text held back and sent in pieces) only the first event is sure of one.
    """
    n = len(chars)
    if n == 0:
        return ()
    if completion_tokens == n or (hidden_end and completion_tokens == n + 1):
        return (1,) * n
    weights = np.asarray(chars, dtype=np.float64)
    shares = completion_tokens * weights / weights.sum()
    tokens = np.floor(shares).astype(int)
    largest_remainder_first = np.argsort(tokens - shares, kind="stable")
    tokens[largest_remainder_first[: completion_tokens - int(tokens.sum())]] += 1
    for i in range(n if completion_tokens >= n else min(1, completion_tokens)):
        if tokens[i] == 0:
            tokens[int(np.argmax(tokens))] -= 1
            tokens[i] = 1
    return tuple(int(t) for t in tokens)


def samples_needed(q: float) -> int:
    """Samples before the q-th percentile is more than an extreme value: P50 2, P90 10, P95 20, P99 100."""
    if not 0 <= q <= 100:
        raise LabsError(f"there is no P{q:g}", "a percentile lies between 0 and 100")
    tail = min(q, 100 - q)
    return math.ceil(round(100 / tail, 6)) if tail else 1


def percentile(values: Sequence[float] | Floats, q: float) -> float:
    """The q-th percentile (0 to 100), linearly interpolated.

    Raises:
        LabsError: there are too few samples for it, or one is not a number.
    """
    data = _finite(values)
    need = samples_needed(q)
    if len(data) < need:
        raise LabsError(
            f"P{q:g} of {len(data)} samples is noise: it needs at least {need}",
            "take more samples, or report percentile_or_max()",
        )
    return float(np.percentile(data, q))


def percentile_or_max(values: Sequence[float] | Floats, q: float) -> Percentile:
    """The q-th percentile where there are samples enough, else the maximum, labelled as such.

    Raises:
        LabsError: there is no sample at all, or one is not a number.
    """
    data = _finite(values)
    if len(data) >= samples_needed(q):
        return Percentile(float(np.percentile(data, q)), f"P{q:g}", len(data))
    return Percentile(float(data.max()), f"max of {len(data)}", len(data))


def median(values: Sequence[float] | Floats) -> float:
    """The middle value; defined from one sample on.

    Raises:
        LabsError: there is no sample, or one is not a number.
    """
    return float(np.median(_finite(values)))


def iqr(values: Sequence[float] | Floats) -> Spread:
    """The interquartile range: the middle half of the samples."""
    low, high = np.percentile(_finite(values), (25, 75))
    return Spread(low=float(low), high=float(high), kind="iqr")


def bootstrap95(
    values: Sequence[float] | Floats,
    statistic: Callable[[Floats], Floats] = lambda rows: rows.mean(axis=-1),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Spread:
    """Where the statistic lies in 95% of resamples with replacement (Efron's percentile bootstrap).

    `statistic` takes an array [resamples, n] and returns [resamples].
    """
    data = _finite(values)
    rows = np.random.default_rng(seed).choice(data, size=(resamples, len(data)), replace=True)
    low, high = np.percentile(statistic(rows), (2.5, 97.5))
    return Spread(low=float(low), high=float(high), kind="bootstrap95")


def goodput(met: Sequence[bool], duration: float) -> float:
    """Requests per second that met ALL limits. A request that failed has met none."""
    if duration <= 0:
        raise LabsError(f"goodput over {duration} s", "the load must have lasted some time")
    return sum(met) / duration


def acceptance_length(accepted: float, drafts: float) -> float:
    """Mean new tokens per target step under speculation: 1 + accepted / drafts.

    Raises:
        LabsError: the engine drafted nothing, so there is no such figure.
    """
    if drafts <= 0:
        raise LabsError("the engine counted no drafts", "check that speculation is switched on")
    return 1 + accepted / drafts


def _finite(values: Sequence[float] | Floats) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise LabsError("there are no samples", "look at the errors of the run")
    if not np.isfinite(data).all():
        raise LabsError("a sample is not a finite number", "keep only samples of requests that succeeded")
    return data
