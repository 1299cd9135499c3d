"""One engine by hand: run it until Ctrl-C, stop the one that runs, show its log."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs_helpers.engines import process, registry, runlock
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT, cache_dir

STOP_TIMEOUT_S = 45.0


def run(name: str, *, precision: str | None, model: str | None, options: Mapping[str, Any]) -> None:
    """Start an engine, say how to talk to it, and keep it until Ctrl-C or until it is stopped.

    Raises:
        LabsError: as `process.serve`, or the engine ended by itself.
    """
    with process.serve(name, precision=precision, model=model, options=options) as server:
        print(f"{server.base_url}/v1   model {server.model.name}   log {server.log_path}\nCtrl-C stops it", flush=True)
        try:
            while Path(f"/proc/{server.pid}").exists():
                time.sleep(0.5)
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
            return
    print(f"{server.engine.title} has ended")


def running() -> dict[str, Any]:
    """What holds the lock now; empty when no engine runs."""
    path = runlock.lock_path()
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return runlock.read_lock(path)
    return {}


def stop(name: str | None) -> str:
    """Stop the engine that runs, whoever started it; returns a sentence.

    Raises:
        LabsError: no such engine, or it did not stop.
    """
    if name is not None:
        registry.get(name)
    held = running()
    if not held:
        return "no engine is running"
    if name is not None and held["engine"] != name:
        return f"{name} is not running; {held['engine']} is (./labs engines stop {held['engine']})"
    os.kill(held["guard_pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while running():
        if time.monotonic() > deadline:
            raise LabsError(
                f"{held['engine']} did not stop within {STOP_TIMEOUT_S:.0f} s",
                f"kill -9 {held['guard_pid']} stops it the hard way; log: {held['log']}",
            )
        time.sleep(0.1)
    return f"{held['engine']} is stopped"


def logs(name: str, lines: int) -> str:
    """The last lines of an engine's newest log, after its path.

    Raises:
        LabsError: no such engine, or it left no log.
    """
    registry.get(name)
    folders = (cache_dir() / "logs", ROOT / "results" / "logs")
    found = [path for folder in folders for path in folder.glob(f"{name}-2*.log")]
    if not found:
        raise LabsError(f"there is no log of {name} yet", f"./labs engines start {name}")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return f"{newest}\n" + "\n".join(newest.read_text(errors="replace").splitlines()[-lines:])
