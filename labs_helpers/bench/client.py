"""The streaming client: sends one request, keeps bytes and arrival times, and reads them when the stream is over.

Parsing while other streams run would delay their time stamps, so nothing is parsed before it must be. Events that
arrive in one piece of the network share one stamp, which is when they really became readable.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp
import orjson

from labs_helpers.bench.request import Request
from labs_helpers.bench.sample import Capture, Sample, read
from labs_helpers.bench.tap import READ_BUFFER, Tap
from labs_helpers.bench.transcript import error_text
from labs_helpers.bench.wire import OPENAI, Wire
from labs_helpers.errors import LabsError

clock = time.monotonic
"""Seconds. The clock of the event loop, and on Linux one clock for all processes."""

STALL_S = 300.0
"""A stream that sends nothing for this long is given up. Generous: a long prefill on a CPU sends nothing either."""

_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


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
        raise LabsError(
            f"{url} lists no models: {type(problem).__name__} {problem}",
            "check that the server runs and speaks this format",
        ) from None


def _shown(body: bytes) -> str:
    try:
        text = error_text(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body.decode(errors="replace")
    return " ".join(text.split())[:300] or "(empty answer)"
