"""What all benchmarks share: their options, the head of a result, and where it goes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.machine import detect

QUIET = 0.5
"""Load average above which figures are shown, but not to be quoted."""


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--json` and `--out`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print JSON instead of the table")
    made.add_argument("--out", type=Path, help="also write the JSON to this file")
    return made


def head(what: str) -> dict[str, Any]:
    """What was measured, when and where; taken before the first measurement."""
    busy = os.getloadavg()[0]
    return {
        "what": what,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": detect().label,
        "load_average_before": round(busy, 2),
        "quiet": busy < QUIET,
    }


def warning(found: dict[str, Any]) -> str:
    """A sentence where the machine was not quiet, else nothing."""
    if found["quiet"]:
        return ""
    return f"load average {found['load_average_before']} at the start: not a quiet machine, do not quote"


def run(
    options: argparse.Namespace, measure: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None]
) -> int:
    """Measure, then write and print what was found; a LabsError is a message and its exit code.

    A file that cannot be written is refused before the measurement, which takes minutes.
    """
    try:
        if options.out:
            _require_writable(options.out)
        found = measure()
    except LabsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    text = json.dumps(found, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    if options.json:
        print(text)
    else:
        show(found)
    return 0


def _require_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as error:
        raise LabsError(f"cannot write {path}: {error.strerror}", "name another --out") from error
