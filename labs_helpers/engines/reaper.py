"""Guards one engine: whatever happens to the process that asked for it, nothing of the engine stays behind.

Run as a script by `process.py`; standard library only, so that it starts in a few hundredths of a second. Two guards
stand in a row, each in a session of its own, both running this file:

    kernel -> outer guard -> inner guard -> engine -> its children, wherever they fork to

Each is a *child subreaper* (prctl(2), Linux 3.4), so an orphan of the engine becomes the guard's child even when it
has started a session of its own, and "everything below me" is complete. A guard that loses the process above it kills
everything below. If a guard itself is killed, the other one does the work. The lock file is held by both, which makes
"an engine runs" the same fact as "the lock is taken".
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

EXIT_BUSY = 113
"""Another engine holds the lock."""
EXIT_SURVIVORS = 114
"""Something could not be killed."""
EXIT_NO_PROGRAM = 115
"""The engine's program could not be executed."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILL_DEADLINE_S = 10.0
SHM = "/dev/shm"  # noqa: S108
LOOK_S = 2.0
"""Seconds between two looks at the shared memory an engine uses: what its processes had is removed after them, also
when they die without a chance to do so themselves."""


def parents() -> dict[int, int]:
    """Every living process and its parent. Zombies are left out: they hold nothing and wait to be collected."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    found[int(name)] = int(parent)
    return found


def descendants(root: int) -> list[int]:
    """Every living process below `root`, not `root` itself, parents before their children."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    below, queue = [], [root]
    while queue:
        queue.extend(found := children.get(queue.pop(0), []))
        below.extend(found)
    return below


def shared_memory_of(pids: Iterable[int]) -> set[int]:
    """Inodes of the files in /dev/shm that these processes have mapped or open.

    Inodes, not names: glibc makes a semaphore under a passing name and links it to its own, so that /proc shows a name
    that never was in the folder (sem_open(3)).
    """
    inodes: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:  # noqa: PTH123
            inodes.update(int(line.split(None, 5)[4]) for line in file if b" /dev/shm/" in line)
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path).startswith(SHM + "/"):  # noqa: PTH115
                        inodes.add(entry.stat().st_ino)
    return inodes


def shared_memory() -> dict[int, str]:
    """What lies in /dev/shm now: inode and path."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), os.scandir(SHM) as entries:
        found = {entry.inode(): entry.path for entry in entries}
    return found


def short_temporary_folder() -> str:
    """Where temporary folders go that are to hold sockets, whose paths may have 107 characters and no more."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 40 else "/tmp"  # noqa: S108


def remove_shared_memory(before: Iterable[int], seen: Iterable[int]) -> None:
    """Remove the files of /dev/shm that the engine was seen to use and that were not there before it."""
    own = set(seen) - set(before)
    for inode, path in shared_memory().items():
        if inode in own:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108


class Guard:
    """One of the two guards. `run` returns its exit code."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = dict(plan)
        self.outer = "lock_fd" not in plan
        self.stop_asked = False
        self.seen_shm: set[int] = set()

    def run(self) -> int:
        """Start what is below, wait until it ends or must end, and leave nothing."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Handlers that do nothing, not SIG_IGN: the engine would inherit that and be deaf to Ctrl-C itself.
        for passed_over in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(passed_over, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

        if self.outer and not self._take_lock():
            return EXIT_BUSY
        try:
            child = subprocess.Popen(
                self._inner_command() if self.outer else self.plan["argv"],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": self.plan["tmp"]},
                start_new_session=True,
                pass_fds=(self.plan["lock_fd"],) if self.outer else (),
                preexec_fn=None if self.outer else lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        except OSError as error:
            self._say(f"cannot execute {self.plan['argv'][0]}: {error.strerror}")
            self._clean()
            return EXIT_NO_PROGRAM
        if not self.outer:
            self._write_state(engine_pid=child.pid)
        return self._watch(child, wake, grace=self.plan["grace_s"] + (KILL_DEADLINE_S if self.outer else 0))

    def _watch(self, child: subprocess.Popen[bytes], wake: int, grace: float) -> int:
        owner, fds, stop_at, looked = self.plan["owner"], [wake], None, 0.0
        with contextlib.suppress(OSError, AttributeError):
            fds.append(os.pidfd_open(owner))
        # Below here only the kernel's word counts: a parent that died before pidfd_open shows in getppid.
        while (code := child.poll()) is None:
            if os.getppid() != owner:
                self._say(f"the process that started this engine ({owner}) is gone: stopping everything")
                break
            if self.stop_asked and stop_at is None:
                self._look(descendants(os.getpid()))
                stop_at = time.monotonic() + grace
                child.send_signal(signal.SIGTERM)
            if stop_at and time.monotonic() > stop_at:
                self._say(f"still running {grace:.0f} s after SIGTERM: killing it")
                break
            if wake in select.select(fds, [], [], 0.1 if stop_at else LOOK_S)[0]:
                os.read(wake, 4096)
            self._collect_orphans(child.pid)
            if time.monotonic() - looked > LOOK_S and not self.outer:
                self._look(descendants(os.getpid()))
                looked = time.monotonic()
        survivors = self._kill_everything(child)
        self._clean()
        if survivors:
            self._say(f"could not kill {survivors}")
            return EXIT_SURVIVORS
        code = child.returncode if code is None else code
        return code if code >= 0 else 128 - code

    def _on_stop(self, *_: object) -> None:
        self.stop_asked = True

    def _collect_orphans(self, child: int) -> None:
        """Collect adopted children that ended; the direct child is left to subprocess, which keeps its exit code."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid == child:
                    return
                os.waitpid(ended.si_pid, 0)

    def _look(self, pids: Iterable[int]) -> None:
        """Remember what shared memory these processes use, also for the other guard."""
        new = shared_memory_of(pids) - self.seen_shm
        if new:
            self.seen_shm |= new
            if not self.outer:
                self._write_state(shm=sorted(self.seen_shm))

    def _kill_everything(self, child: subprocess.Popen[bytes]) -> list[int]:
        deadline = time.monotonic() + KILL_DEADLINE_S
        while True:
            child.poll()
            self._collect_orphans(child.pid)
            alive = descendants(os.getpid())
            if not alive or time.monotonic() > deadline:
                return alive
            self._look(alive)
            for pid in alive:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _clean(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # what the other guard saw
            self.seen_shm.update(json.loads(os.pread(self.plan["lock_fd"], 2**20, 0)).get("shm", ()))
        remove_shared_memory(self.plan["shm_before"], self.seen_shm)
        shutil.rmtree(self.plan["tmp"], ignore_errors=True)

    def _inner_command(self) -> list[str]:
        inner = {**self.plan, "owner": os.getpid()}
        return [sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(inner)]  # noqa: PTH100

    def _take_lock(self) -> bool:
        lock_fd = os.open(self.plan["lock"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.plan |= {
            "lock_fd": lock_fd,
            "shm_before": list(shared_memory()),
            "tmp": tempfile.mkdtemp(prefix="labs-engine-", dir=short_temporary_folder()),
        }
        self.plan["state"] = {**self.plan["state"], "guard_pid": os.getpid(), "owner_pid": self.plan["owner"]}
        self._write_state()
        return True

    def _write_state(self, **more: Any) -> None:
        """Say in the lock file who holds it."""
        self.plan["state"] = {**self.plan["state"], **more}
        data = json.dumps(self.plan["state"]).encode()
        os.ftruncate(self.plan["lock_fd"], len(data))
        os.pwrite(self.plan["lock_fd"], data, 0)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"labs: {text}\n".encode())


if __name__ == "__main__":
    sys.exit(Guard(json.loads(sys.argv[1])).run())
