"""One engine at a time: the lock that says one runs, and the log it writes."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.paths import cache_dir

LOG_LINES = 15


def lock_path() -> Path:
    """The file whose lock is held while an engine runs; made when missing.

    `LABS_ENGINE_LOCK` names another one, so that two workers of the course's tests can hold an engine each.

    Raises:
        LabsError: the cache folder cannot be written.
    """
    path = cache_dir() / "engines" / os.environ.get("LABS_ENGINE_LOCK", "running.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise LabsError(
            f"cannot write the cache folder {cache_dir()}: {error.strerror}", "set LABS_CACHE to a folder you own"
        ) from error
    return path


def read_lock(path: Path) -> dict[str, Any]:
    """Who holds the lock, as its holder wrote it; empty when nobody ever did."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def busy_error(lock: Path) -> LabsError:
    """Another engine runs: which, whose, and how to stop it."""
    holder = read_lock(lock)
    whose = "this process" if holder.get("owner_pid") == os.getpid() else f"process {holder.get('owner_pid')}"
    name, pid = holder.get("engine", "another engine"), holder.get("engine_pid", holder.get("guard_pid", "unknown"))
    return LabsError(
        f"{name} is already running (pid {pid}, started by {whose}), and engines run one at a time",
        "leave its `with` block, or stop it: ./labs engines stop",
    )


def new_log(folder: Path, name: str) -> Path:
    """An empty log file, named by engine and time.

    Raises:
        LabsError: the folder cannot be written.
    """
    path = folder / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise LabsError(
            f"cannot write a log into {folder}: {error.strerror}", "set LABS_CACHE or the output folder to one you own"
        ) from error
    return path


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, indented."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "    (no log)"
    return "\n".join("    " + line for line in text.splitlines()[-lines:]) or "    (the log is empty)"
