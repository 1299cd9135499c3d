"""One updating line on stdout while a load runs.

Written by hand because a live display of a library redraws for milliseconds, in which no stream can be stamped.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_REFRESH_S = 0.5


class ProgressLine:
    """`what  12/64  ...`, redrawn in place in a terminal or a notebook; elsewhere only the last line is printed."""

    def __init__(self, what: str, total: int, shown: bool = True) -> None:
        self._what, self._total, self._shown = what, total, shown
        self._done = self._failed = 0
        self._start = self._drawn = time.monotonic()
        self._display = _notebook_display() if shown else None

    def step(self, failed: bool) -> None:
        """Count one finished request."""
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        if self._shown and now - self._drawn >= _REFRESH_S:
            self._drawn = now
            self._draw(self._line(now))

    def close(self, summary: str) -> None:
        """Replace the line by its last state."""
        if self._shown:
            self._draw(f"{self._what}  {summary}", last=True)

    def _line(self, now: float) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._what}  {self._done}/{self._total} requests{failed}, {now - self._start:.0f} s"

    def _draw(self, line: str, last: bool = False) -> None:
        if self._display is not None:
            self._display.update({"text/plain": line}, raw=True)
        elif sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[2K{line}" + ("\n" if last else ""))
            sys.stdout.flush()
        elif last:
            print(line, flush=True)


def _notebook_display() -> Any:
    """A display that can be updated in place, or None outside a notebook kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)
