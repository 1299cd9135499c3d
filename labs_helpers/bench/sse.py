"""Server-sent events (HTML Living Standard, 9.2.6), read from a whole body."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A line ends with CR LF, LF or CR, and a blank line ends an event. The groups are atomic so that one CR LF is never
# taken for two line ends.
_END_OF_EVENT = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


def sse_events(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(end offset, event name, data) of every event that carries data.

    A last event without its blank line counts when it is there in full; the caller sees whether its data can be read.
    """
    for end, block in _blocks(body):
        if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
            yield end, b"", block[6:]
            continue
        name, data = b"", []
        for line in _END_OF_LINE.split(block):
            key, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if key == b"data":
                data.append(value)
            elif key == b"event":
                name = value
        if data:
            yield end, name, b"\n".join(data)


def _blocks(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(end offset, bytes) of everything between blank lines."""
    end = 0
    if b"\r" not in body:  # the common case, at a tenth of the cost
        for block in body.split(b"\n\n"):
            end += len(block) + 2
            yield min(end, len(body)), block
        return
    for blank in _END_OF_EVENT.finditer(body):
        start, end = end, blank.end()
        yield end, body[start : blank.start()]
    yield len(body), body[end:]
