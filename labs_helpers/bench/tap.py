"""Stamp data the moment it is read from the socket, not when some coroutine gets its turn.

A response of aiohttp is read by a coroutine, which costs a future, a wake-up and a turn of the event loop for every
event, and with many streams the stamp of one waits for the turns of the others. The tap sits between the transport and
aiohttp's protocol instead: aiohttp still does all of HTTP, and nothing is woken before the stream has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import aiohttp

READ_BUFFER = 1 << 30
"""`read_bufsize` of a session whose responses are tapped: aiohttp stops reading at twice this many unread bytes, and
nothing is taken out before the stream has ended."""


class Tap(asyncio.Protocol):
    """Between the transport of `response` and its protocol: notes how much of the body was there when.

    At `times[i]` (by `clock`) the first `ends[i]` bytes had come. `body` is complete once the context is left.
    """

    def __init__(self, response: aiohttp.ClientResponse, clock: Callable[[], float]) -> None:
        self.times: list[float] = []
        self.ends: list[int] = []
        self.body = b""
        self._clock = clock
        self._content = response.content
        connection = response.connection  # None: the whole body came along with the headers
        self._transport = connection.transport if connection is not None else None
        self._inner: asyncio.Protocol | None = None

    def __enter__(self) -> Tap:
        self._mark(self._clock())
        if self._transport is not None and not self._content.is_eof():
            self._inner = cast(asyncio.Protocol, self._transport.get_protocol())
            self._transport.set_protocol(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()
        self._take_body()

    async def ended(self) -> None:
        """Wait for the end of the body.

        Raises:
            aiohttp.ClientError, OSError: the connection broke.
        """
        if (error := self._content.exception()) is not None:
            raise error
        await self._content.wait_eof()

    def data_received(self, data: bytes) -> None:
        now = self._clock()
        if self._inner is not None:
            self._inner.data_received(data)
            self._mark(now)
            if self._content.is_eof():
                self._remove()  # at once: the next request may take this connection before anybody is woken

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_body()  # while it can be read: afterwards reading raises
        if self._inner is not None:
            self._inner.connection_lost(exc)
            self._inner = None

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def _mark(self, now: float) -> None:
        self.times.append(now)
        self.ends.append(self._content.total_bytes)

    def _take_body(self) -> None:
        if self._content.exception() is None:
            self.body += self._content.read_nowait()

    def _remove(self) -> None:
        if self._transport is not None and self._inner is not None:
            self._transport.set_protocol(self._inner)
            self._inner = None
