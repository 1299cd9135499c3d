"""The streaming client: sends one request, keeps bytes and arrival times, and reads them when the stream is over.

Parsing while other streams run would delay their time stamps, so nothing is parsed before it must be. Events that
arrive in one piece of the network share one stamp, which is when they really became readable.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import aiohttp
import orjson

from labs_helpers.bench import metrics
from labs_helpers.bench.metrics import Event
from labs_helpers.bench.request import Request
from labs_helpers.bench.tap import READ_BUFFER, Tap
from labs_helpers.bench.transcript import Transcript, error_text
from labs_helpers.bench.wire import OPENAI, Wire
from labs_helpers.errors import LabsError

clock = time.monotonic
"""Seconds. The clock of the event loop, and on Linux one clock for all processes."""

STALL_S = 300.0
"""A stream that sends nothing for this long is given up. Generous: a long prefill on a CPU sends nothing either."""

_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


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


def open_session() -> aiohttp.ClientSession:
    """A session for measuring: no connection limit, no cookies, no proxy, no timer that is re-armed on every read.

    Every request opens a connection of its own: some servers (llama.cpp's) close theirs after a stream without saying
    so, and a request sent into that would be lost. On loopback this costs about 0.1 ms of TTFT, the same everywhere.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BUFFER,
    )


async def stream(
    session: aiohttp.ClientSession,
    base_url: str,
    model: str,
    request: Request,
    intended: float | None = None,
    *,
    wire: Wire = OPENAI,
    stall_s: float = STALL_S,
) -> Sample:
    """Send one request and read its stream. Whatever goes wrong on the way is in `Sample.error`.

    `session` comes from `open_session`. `intended` is when the request was due on `clock`; now, when it is not given.
    """
    return read(await capture(session, base_url, model, request, intended, wire=wire, stall_s=stall_s), wire)


async def capture(
    session: aiohttp.ClientSession,
    base_url: str,
    model: str,
    request: Request,
    intended: float | None = None,
    *,
    wire: Wire = OPENAI,
    stall_s: float = STALL_S,
) -> Capture:
    """Send one request and keep what arrives, unread. Errors are kept as well, never raised."""
    if intended is None:
        intended = clock()
    body = orjson.dumps(wire.body(request, model))
    tap, error = None, None
    sent = clock()
    try:
        async with asyncio.timeout(stall_s):
            response = await session.post(base_url + wire.path(request), data=body, headers=_HEADERS)
        async with response:
            if response.status == 200:
                with Tap(response, clock) as tap:
                    await _until_ended(tap, stall_s)
                if response.content_type == "application/json":
                    error = f"the server answered without streaming: {_shown(tap.body)}"
            else:
                error = await _refusal(session, base_url, model, response, wire)
    except TimeoutError:
        error = f"no data from the server for {stall_s:g} s"
    except (aiohttp.ClientError, OSError) as problem:
        error = f"the connection broke: {type(problem).__name__} {problem}".strip()
    if tap is None:
        return Capture(intended, sent, error=error)
    return Capture(intended, sent, tuple(tap.times), tuple(tap.ends), tap.body, error)


async def _until_ended(tap: Tap, stall_s: float) -> None:
    """Wait for the end of the stream. The stall timer is looked at when it fires, not re-armed on every read.

    Raises:
        TimeoutError: nothing came for `stall_s`.
    """
    progress = clock()
    while True:
        try:
            async with asyncio.timeout_at(progress + stall_s):
                return await tap.ended()
        except TimeoutError:
            last = tap.times[-1] if tap.times else progress
            if last <= progress:
                raise
            progress = last


async def _refusal(
    session: aiohttp.ClientSession, base_url: str, model: str, response: aiohttp.ClientResponse, wire: Wire
) -> str:
    """Why the server said no; for an unknown model also the names it does know."""
    said = f"HTTP {response.status}: {_shown(await response.read())}"
    if response.status != 404:
        return said
    try:
        names = await model_names(session, base_url, wire)
    except LabsError:
        return said
    return f"{said}; asked for model {model!r}, the server offers {', '.join(map(repr, names)) or 'none'}"


async def model_names(session: aiohttp.ClientSession, base_url: str, wire: Wire = OPENAI) -> list[str]:
    """The names the server takes for its models.

    Raises:
        LabsError: it does not answer, or not in this format.
    """
    url = base_url + wire.models_path
    try:
        async with asyncio.timeout(30.0), session.get(url) as response:
            return wire.model_names(orjson.loads(await response.read()))
    except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError, KeyError, AttributeError) as problem:
        raise LabsError(f"{url} lists no models: {type(problem).__name__} {problem}",
                        "check that the server runs and speaks this format") from None


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
        intended=captured.intended, sent=captured.sent, end=arrival(transcript.last_end),
        events=tuple(Event(arrival(p.end), n) for p, n in zip(transcript.pieces, tokens, strict=True)),
        prompt_tokens=transcript.prompt_tokens or 0, cached_tokens=transcript.cached_tokens,
        completion_tokens=transcript.completion_tokens or 0, finish_reason=transcript.finish_reason,
        text=transcript.text, reasoning=transcript.reasoning, timings=transcript.timings, error=error,
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
        raise LabsError(f"all {len(samples)} requests failed: " + "; ".join(f"{n} x {why}" for why, n in reasons),
                        "read the server's log, then run this load again")
    return good


def _shown(body: bytes) -> str:
    try:
        text = error_text(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body.decode(errors="replace")
    return " ".join(text.split())[:300] or "(empty answer)"
