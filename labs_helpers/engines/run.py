"""One engine process under its guards (`reaper.py`): started, watched until it answers, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from labs_helpers.engines import ports, reaper
from labs_helpers.engines.base import Engine, LaunchSpec
from labs_helpers.engines.progress import ProgressLine
from labs_helpers.engines.runlock import busy_error, lock_path, new_log, read_lock, tail
from labs_helpers.errors import LabsError

REAPER = Path(reaper.__file__)
GRACE_S = 10.0
"""Seconds an engine has to end by itself after SIGTERM."""
POLL_S = 0.05
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "MPLBACKEND", "LD_PRELOAD")
"""Settings of this process that would be wrong in an engine's own environment."""


class PortLost(LabsError):
    """The port was free a moment ago and somebody else has it now."""


class Run:
    """One engine process under its guards."""

    def __init__(self, engine: Engine, spec: LaunchSpec, port: int, log_dir: Path) -> None:
        self.engine, self.spec, self.port = engine, spec, port
        self.log = new_log(log_dir, engine.name)
        self.base_url = f"{spec.scheme}://127.0.0.1:{port}"
        self._lock = lock_path()
        plan = {
            "argv": list(spec.argv),
            "owner": os.getpid(),
            "lock": str(self._lock),
            "grace_s": GRACE_S,
            "state": {"engine": engine.name, "url": self.base_url, "log": str(self.log)},
        }
        environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED} | dict(spec.env)
        with self.log.open("ab") as out:
            self._started = time.monotonic()
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER), json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=spec.cwd,
                start_new_session=True,
            )

    def wait_until_ready(self, timeout_s: float, line: ProgressLine, abandoned: threading.Event) -> float:
        """Seconds from start to the first good health answer.

        Raises:
            PortLost: somebody else took the port in between.
            LabsError: it died or did not answer in time.
        """
        while True:
            waited = time.monotonic() - self._started
            if self._guard.poll() is not None:
                raise self._death(waited)
            if ports.get_status(self.port, self.spec.health_path) == 200:
                ready = time.monotonic() - self._started
                if ports.listener(self.port) in {None, *reaper.descendants(self._guard.pid)}:
                    return ready
                raise PortLost(
                    f"port {self.port} was taken by another process while {self.engine.title} started",
                    "start it again, or choose a port",
                )
            if waited > timeout_s:
                raise self._error(f"did not answer within {timeout_s:.0f} s")
            if abandoned.is_set():
                raise LabsError(f"the start of {self.engine.title} was interrupted")
            line.show(f"{self.engine.title}: starting, {waited:.0f} s")
            time.sleep(POLL_S)

    def engine_pid(self) -> int:
        """The engine's own process, below the guards."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            state = read_lock(self._lock)
            if state.get("guard_pid") == self._guard.pid and "engine_pid" in state:
                return int(state["engine_pid"])
            time.sleep(POLL_S)
        raise LabsError(f"the guard of {self.engine.title} does not say which process it started", f"log: {self.log}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL of everything, and wait until nothing is left.

        Raises:
            LabsError: something survived.
        """
        before = reaper.descendants(self._guard.pid) if self._guard.poll() is None else []
        self._guard.terminate()
        try:
            code = self._guard.wait(timeout=2 * GRACE_S + 2 * reaper.KILL_DEADLINE_S)
        except subprocess.TimeoutExpired:
            code = reaper.EXIT_SURVIVORS
        left = sorted(set(before) & set(reaper.parents()))
        if code == reaper.EXIT_SURVIVORS or left:
            raise LabsError(
                f"{self.engine.title} could not be stopped; still alive: {left or 'unknown'}",
                f"look at its log {self.log}; kill -9 these processes, or restart the machine",
            )

    def _death(self, waited: float) -> LabsError:
        code = self._guard.returncode
        if code == reaper.EXIT_BUSY:
            self.log.unlink(missing_ok=True)  # nothing was started
            return busy_error(self._lock)
        if ports.listener(self.port) is not None or "address already in use" in tail(self.log, 40).lower():
            return PortLost(
                f"port {self.port} was taken by another process while {self.engine.title} started",
                "start it again, or choose a port",
            )
        how = f"was killed by signal {code - 128}" if 128 < code < 128 + signal.NSIG else f"ended with exit code {code}"
        return self._error(f"{how} after {waited:.0f} s, before it answered")

    def _error(self, what: str) -> LabsError:
        return LabsError(
            f"{self.engine.title} {what}; the last lines of its log:\n{tail(self.log)}", f"the whole log: {self.log}"
        )


def warm_up(port: int, model: str, title: str, log: Path | None) -> None:
    """One small request, so that the first measured one does not pay for what happens only once.

    Raises:
        LabsError: it was refused.
    """
    body = {"model": model, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    status, answer = ports.post(port, "/v1/completions", body)
    if status != 200:
        raise LabsError(
            f"{title} answers, but refuses to complete a text ({status}): {answer[:300]}",
            f"the whole log: {log}" if log else "",
        )
