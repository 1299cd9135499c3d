"""One request and what became of it: first as raw as it arrived, then read."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from labs_helpers.bench import metrics
from labs_helpers.bench.metrics import Event
from labs_helpers.bench.transcript import Transcript
from labs_helpers.bench.wire import OPENAI, Wire
from labs_helpers.errors import LabsError


@dataclass(frozen=True, slots=True)
class Capture:
    """One stream as it arrived, unread: at `times[i]` the first `ends[i]` bytes of `body` were there."""

    intended: float
    sent: float
    times: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    body: bytes = b""
    error: str | None = None

    @property
    def finished(self) -> float:
        """When the last byte arrived, or when it was sent if none did."""
        return self.times[-1] if self.times else self.sent


@dataclass(frozen=True, slots=True)
class Sample:
    """One request and what became of it. Times are seconds on `clock`; a failed request has `error`."""

    intended: float
    """The scheduled arrival: all latencies count from here."""
    sent: float
    end: float
    """Arrival of the last event of any kind."""
    events: tuple[Event, ...] = ()
    """Content events (reasoning counts; role-only and empty ones do not), each with the tokens it carried."""
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    """Prompt tokens the server took from its prefix cache, None where it does not say."""
    completion_tokens: int = 0
    finish_reason: str | None = None
    text: str = ""
    reasoning: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    """The server's own timings, under the server's own names."""
    error: str | None = None

    @property
    def lag_s(self) -> float:
        """How late the client itself was: sent after intended."""
        return self.sent - self.intended

    @property
    def ttft_s(self) -> float:
        return metrics.ttft(self.intended, self.events)

    @property
    def e2e_s(self) -> float:
        return metrics.e2e(self.intended, self.end)

    @property
    def tpot_s(self) -> float | None:
        """None when the first content event carried every token."""
        return metrics.tpot(self.events, self.completion_tokens, self.end)

    @property
    def itl_s(self) -> metrics.Floats:
        return metrics.itl(self.events)

    @property
    def tokens_per_event(self) -> float:
        return self.completion_tokens / len(self.events) if self.events else 0.0


def read(captured: Capture, wire: Wire = OPENAI) -> Sample:
    """Turn what arrived into a sample: find the events, give each the time its last byte came, count its tokens."""
    transcript = _transcript(captured.body, wire)

    def arrival(end: int) -> float:
        return captured.times[bisect_left(captured.ends, end)] if end else captured.finished

    error = captured.error or transcript.error
    if error is None and not transcript.pieces:
        error = "the stream ended without any content"
    tokens = _tokens_per_event(transcript)
    return Sample(
        intended=captured.intended,
        sent=captured.sent,
        end=arrival(transcript.last_end),
        events=tuple(Event(arrival(p.end), n) for p, n in zip(transcript.pieces, tokens, strict=True)),
        prompt_tokens=transcript.prompt_tokens or 0,
        cached_tokens=transcript.cached_tokens,
        completion_tokens=transcript.completion_tokens or 0,
        finish_reason=transcript.finish_reason,
        text=transcript.text,
        reasoning=transcript.reasoning,
        timings=transcript.timings,
        error=error,
    )


def _transcript(body: bytes, wire: Wire) -> Transcript:
    if not body:
        return Transcript(error="the server closed the stream without an event")
    try:
        return wire.read(body)
    except (AttributeError, TypeError, ValueError) as problem:  # JSON, but e.g. a list where an object belongs
        return Transcript(error=f"the events are not of the form {wire.name}: {problem}")


def _tokens_per_event(transcript: Transcript) -> tuple[int, ...]:
    """Tokens of each content event: as the server counted them, else spread over the characters."""
    running = [p.generated for p in transcript.pieces if type(p.generated) is int]
    total = transcript.completion_tokens
    if running and len(running) == len(transcript.pieces):
        steps = [b - a for a, b in pairwise([0, *running])]
        if steps[0] > 0 and min(steps) >= 0 and (total is None or running[-1] <= total):
            return tuple(steps)
    hidden_end = transcript.finish_reason == "stop"
    chars = [p.chars for p in transcript.pieces]
    return metrics.spread_tokens(chars, len(chars) if total is None else total, hidden_end=hidden_end)


def succeeded(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples without an error.

    Raises:
        LabsError: every request failed; the message counts the reasons.
    """
    good = tuple(s for s in samples if s.error is None)
    if not good:
        reasons = Counter(s.error for s in samples).most_common(3)
        raise LabsError(
            f"all {len(samples)} requests failed: " + "; ".join(f"{n} x {why}" for why, n in reasons),
            "read the server's log, then run this load again",
        )
    return good
