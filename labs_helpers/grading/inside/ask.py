"""Inside the sandbox: call one exercise with the arguments of its cases and write down what it returned.

Reads {"imports": [source, ...], "cells": [source, ...], "own": source, "target": name, "case_s": seconds, "cases":
[[index, args, trace], ...]} as JSON from standard input; writes one JSON line per case to standard output. There is no
expected answer anywhere in this process: the judge is outside. A case that takes too long ends the process, by SIGPROF
or SIGALRM.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

ANSWER_BYTES = 1 << 20


class Absent:
    """Stands for `lab` and the like while the cell's definitions are read: takes every call, does nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        return None


def main() -> None:
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    from labs_helpers.exercises import ask_raw

    def say(row: dict[str, Any]) -> None:
        out.write(json.dumps(row) + "\n")
        out.flush()

    allow(10 + job["case_s"])
    space: dict[str, Any] = {"__name__": "__main__", "lab": Absent()}
    for source in job["imports"] + job["cells"]:
        execute(source, space)
    trouble = execute(job["own"], space)
    if job["target"] not in space:
        say({"missing": True, "trouble": trouble})
        os._exit(0)
    target = space[job["target"]]
    say({"ready": True, "trouble": trouble})
    for index, args, trace in job["cases"]:
        say({"asked": index})
        allow(job["case_s"])
        outcome = ask_raw(target, args, trace)
        row = {
            "index": index,
            "value": outcome.value,
            "error": outcome.error,
            "message": outcome.message,
            "is_open": outcome.is_open,
        }
        try:
            line = json.dumps(row)
        except (TypeError, ValueError, RecursionError) as error:
            line = json.dumps(
                {
                    "index": index,
                    "value": None,
                    "error": type(error).__name__,
                    "message": "the result cannot be written as JSON",
                    "is_open": False,
                }
            )
        if len(line) > ANSWER_BYTES:
            line = json.dumps(
                {
                    "index": index,
                    "value": None,
                    "error": "TooLarge",
                    "message": f"the result is larger than {ANSWER_BYTES >> 20} MiB",
                    "is_open": False,
                }
            )
        out.write(line + "\n")
        out.flush()
    os._exit(0)


def allow(seconds: float) -> None:
    """Processor time until this process is ended, and four times that of waiting: a busy machine costs no points."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 4 * seconds)


def execute(source: str, space: dict[str, Any]) -> str:
    """Run a cell statement by statement, so that one line that needs an engine does not lose the definitions."""
    trouble = ""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    for statement in tree.body:
        module = ast.Module([statement], [])
        try:
            exec(compile(module, "<cell>", "exec"), space)  # noqa: S102 (this is what the sandbox is for)
        except (Exception, SystemExit) as error:
            trouble = trouble or "".join(traceback.format_exception_only(error)).strip()[-300:]
    return trouble


main()
