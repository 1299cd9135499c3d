"""A server may close its connection after a stream without announcing it; no request may be lost to that."""

from __future__ import annotations

import asyncio
import json

from labs_helpers import bench

EVENTS = (
    {"choices": [{"text": "one", "finish_reason": None}]},
    {"choices": [{"text": " two", "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 keep-alive in its headers, and yet it answers one request only."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"POST" in head:
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS) + b"data: [DONE]\n\n"
        kind = b"text/event-stream"
    else:
        body, kind = json.dumps({"data": [{"id": "m"}]}).encode(), b"application/json"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    await writer.drain()
    await reader.read(1)  # whatever comes next on this connection is hung up on
    writer.transport.abort()


async def test_requests_in_a_row_all_arrive():
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        run = await bench.run(url, ["a", "b", "c", "d", "e", "f"], concurrency=1, output_tokens=2, progress=False)
    assert run.errors == {}
    assert [sample.completion_tokens for sample in run.samples] == [2] * 6
