"""Holding a run to its limits from outside: wall time, processor time, memory, processes, output.

Resource limits of the kernel count one process or thread at a time; this counts the whole run, by looking at its
processes ten times a second.
"""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO

from labs_helpers.grading.processes import Group, cpu_seconds, memory_bytes

MIB = 1 << 20
LOOK_EVERY_S = 0.1
STDERR_BYTES = 64 << 10


@dataclass(frozen=True)
class Limits:
    """When a run is stopped. Sizes in bytes, times in seconds."""

    wall_s: float
    cpu_s: float
    memory_bytes: int
    processes: int
    """Processes at a time; threads may be eight times as many and 256 more."""
    file_bytes: int = 256 * MIB
    disk_bytes: int = 512 * MIB
    """Size of each private folder: home, temp and shared memory."""
    answer_bytes: int = 64 * MIB
    """Most that a run may hand back."""

    def for_one_process(self) -> dict[str, int]:
        """The part the kernel can hold: these are inherited by every process of the run."""
        return {
            "RLIMIT_CPU": int(self.cpu_s) + 1,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": self.processes * 8 + 256,
            "RLIMIT_NOFILE": 65_536,
        }


class Watch:
    """Feeds a process, reads it, and kills its group at the first limit; `stopped` says which one."""

    def __init__(self, process: subprocess.Popen[bytes], group: Group, limits: Limits) -> None:
        self.process, self.group, self.limits = process, group, limits
        self.stopped = ""
        self._over = threading.Event()

    def until_end(self, stdin: bytes) -> tuple[bytes, str]:
        """Returns what it wrote to standard output and (the beginning of) standard error."""
        out: list[bytes] = []
        err: list[bytes] = []
        assert self.process.stdin and self.process.stdout and self.process.stderr
        threads = [
            threading.Thread(target=self._feed, args=(self.process.stdin, stdin), daemon=True),
            threading.Thread(
                target=self._read, args=(self.process.stdout, out, self.limits.answer_bytes, True), daemon=True
            ),
            threading.Thread(target=self._read, args=(self.process.stderr, err, STDERR_BYTES, False), daemon=True),
        ]
        for thread in threads:
            thread.start()
        self._guard()
        for thread in threads[1:]:
            thread.join(timeout=10)
        return b"".join(out), b"".join(err).decode(errors="replace")

    def _guard(self) -> None:
        limits, started = self.limits, time.monotonic()
        while True:
            try:
                self.process.wait(timeout=LOOK_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                pass
            pids = self.group.pids()
            if time.monotonic() - started > limits.wall_s:
                self._stop(f"stopped at the time limit of {limits.wall_s:.0f} s")
            elif len(pids) > limits.processes:
                self._stop(f"stopped at the limit of {limits.processes} processes")
            elif memory_bytes(pids, limits.memory_bytes) > limits.memory_bytes:
                self._stop(f"stopped at the memory limit of {limits.memory_bytes // MIB} MiB")
            elif cpu_seconds(pids) > limits.cpu_s:
                self._stop(f"stopped at the limit of {limits.cpu_s:.0f} s of processor time")
        self.group.kill()

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why
        self.process.kill()
        self.group.kill()

    @staticmethod
    def _feed(pipe: IO[bytes], data: bytes) -> None:
        try:
            with pipe:
                pipe.write(data)
        except OSError:
            pass

    def _read(self, pipe: IO[bytes], into: list[bytes], most: int, stop: bool) -> None:
        total = 0
        with pipe:
            while chunk := pipe.read1(1 << 16):  # type: ignore[attr-defined]
                if total < most:
                    into.append(chunk[: most - total])
                total += len(chunk)
                if stop and total > most:
                    self._stop(f"stopped after it had handed back {most // MIB} MiB")
                    return
