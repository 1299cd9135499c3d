"""One updating line of progress: in a terminal, in a notebook, and in a log file."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class ProgressLine:
    """Shows `show(text)` in place; what was shown last stays when the `with` block ends.

    A notebook gets one display that is updated, so that the saved notebook holds only the last text. Where nothing
    can be updated (a file, a pipe), only the last text is printed, and none when an error says more.
    """

    def __init__(self) -> None:
        self._text = ""
        self._display: Any = None

    def __enter__(self) -> ProgressLine:
        return self

    def show(self, text: str) -> None:
        """Replace the line by `text`."""
        if text == self._text:
            return
        self._text = text
        if _in_notebook():
            self._show_in_notebook(text)
        elif sys.stdout.isatty():
            print("\r\x1b[K" + text, end="", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._text or self._display is not None:
            return
        if sys.stdout.isatty():
            print(flush=True)
        elif kind is None:
            print(self._text, flush=True)

    def _show_in_notebook(self, text: str) -> None:
        from IPython.display import display

        if self._display is None:
            self._display = display({"text/plain": text}, raw=True, display_id=True)
        elif self._display is not None:
            self._display.update({"text/plain": text}, raw=True)


def _in_notebook() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
