"""What a load shows while it runs: one line, redrawn seldom, since no stream can be stamped while it is drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from labs_helpers.engines.progress import ProgressLine

_REFRESH_S = 0.5


class RequestProgress:
    """Counts finished requests and shows them on stdout; `close` replaces the count by the result."""

    def __init__(self, line: ProgressLine | None, what: str, total: int) -> None:
        self._line, self._what, self._total = line, what, total
        self._done = self._failed = 0
        self._start = self._drawn = time.monotonic()

    def step(self, failed: bool = False) -> None:
        """Count one finished request."""
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if self._line is not None and now - self._drawn >= _REFRESH_S:
            self._drawn = now
            failures = f", {self._failed} failed" if self._failed else ""
            self._line.show(f"{self._what}  {self._done}/{self._total}{failures}, {now - self._start:.0f} s")

    def note(self, text: str) -> None:
        """Show what goes on before the first request is counted."""
        if self._line is not None:
            self._line.show(f"{self._what}  {text}")

    def close(self, result: str) -> None:
        if self._line is not None:
            self._line.show(f"{self._what}  {result}")


@contextmanager
def request_progress(what: str, total: int, shown: bool) -> Iterator[RequestProgress]:
    """A line for `total` requests; nothing is printed unless `shown`."""
    if not shown:
        yield RequestProgress(None, what, total)
        return
    with ProgressLine() as line:
        yield RequestProgress(line, what, total)
