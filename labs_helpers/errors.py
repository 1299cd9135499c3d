"""The one error a person is meant to read."""

from __future__ import annotations


class LabsError(Exception):
    """Something the reader can act on: what happened, to what, and what to do next.

    The command line prints it without a traceback and exits with `exit_code`; a notebook shows it as it is.
    """

    exit_code = 2

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what if not remedy else f"{what}\n  -> {remedy}")
        self.what = what
        self.remedy = remedy
