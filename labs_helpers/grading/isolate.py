"""Running a student's code so that it can neither look around nor stay.

With bubblewrap the program gets its own network (loopback only), process, IPC and mount namespaces, a read-only view
of the few folders it needs, a private home and temp of limited size, an empty environment, no capabilities and a
system call filter. `watch.py` holds it to the other limits from outside. When the first process ends or is killed, the
kernel kills everything in its PID namespace; nothing stays.

Without bubblewrap a run is possible only as `trusted`: limits and clean-up, but no walls.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.grading import seccomp
from labs_helpers.grading.processes import MARK, Group, namespace_of
from labs_helpers.grading.view import HOME, INSIDE, View, course_view, environment, mounts, variables
from labs_helpers.grading.watch import Limits, Watch

FIRST_UID = 61_000
"""Run as root, a sandbox takes a user of its own above this number, so that its process limit counts only itself."""
USER_UID = 1_000


@dataclass(frozen=True)
class Finished:
    """What came of one run, seen from outside."""

    stdout: bytes
    stderr: str
    returncode: int
    stopped: str
    """'' when it ended by itself, else which limit stopped it, as a sentence."""
    started_at: float
    finished_at: float
    left: tuple[int, ...] = ()
    """Host PIDs that would not die: always empty with bubblewrap."""

    @property
    def seconds(self) -> float:
        return self.finished_at - self.started_at


class Isolation:
    """A way to run programs: `run` is the only verb."""

    def __init__(self, *, trusted: bool = False) -> None:
        self.trusted = trusted
        self._lock = threading.Lock()
        self._next_uid = 0
        self._alive: dict[int, Group] = {}
        self._stopped = False

    def stop(self) -> None:
        """End every run now, and let no new one live: for Ctrl-C."""
        self._stopped = True
        for group in list(self._alive.values()):
            group.kill()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes,
        limits: Limits,
        view: View,
        observer: Callable[[Group], contextlib.AbstractContextManager[object]] | None = None,
    ) -> Finished:
        """Run one program to its end or to a limit. Never raises for what the program does.

        Args:
            argv: the program as seen inside.
            stdin: all of its input.
            limits: when to stop it.
            view: what it can see.
            observer: entered once the program's processes can be found, left before they are gone.

        Raises:
            LabsError: the sandbox itself could not be started.
        """
        with contextlib.ExitStack() as stack:
            command, fds, info = self._command(stack, argv, limits, view)
            started = time.time()
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=command.env,
                pass_fds=fds,
                process_group=0,
                cwd=command.cwd,
                close_fds=True,
            )
            for fd in fds:
                os.close(fd)
            group = command.group or self._group(process, info)
            watch = Watch(process, group, limits)
            self._alive[process.pid] = group
            try:
                if self._stopped:
                    process.kill()
                with (observer or _nobody)(group):
                    stdout, stderr = watch.until_end(stdin)
            finally:
                process.kill()
                left = group.kill()
                process.wait()
                self._alive.pop(process.pid, None)
            return Finished(stdout, stderr, process.returncode, watch.stopped, started, time.time(), tuple(left))

    # -- bubblewrap --------------------------------------------------------------------------------------------------

    def _command(
        self, stack: contextlib.ExitStack, argv: Sequence[str], limits: Limits, view: View
    ) -> tuple[_Command, list[int], int]:
        if self.trusted:
            return self._plain(stack, argv, limits, view), [], -1
        info_read, info_write = os.pipe()
        stack.callback(os.close, info_read)
        filter_read, filter_write = os.pipe()
        os.write(filter_write, seccomp.program())
        os.close(filter_write)
        root = os.geteuid() == 0
        uid = self._uid() if root else None
        rights = (
            [
                "--cap-drop",
                "ALL",
                "--cap-add",
                "CAP_SETUID",
                "--cap-add",
                "CAP_SETGID",
                "--cap-add",
                "CAP_SETPCAP",
                "--cap-add",
                "CAP_SYS_RESOURCE",
            ]
            if root
            else ["--unshare-user", "--uid", str(USER_UID), "--gid", str(USER_UID)]
        )
        entry = [
            sys.executable,
            "-I",
            "-S",
            "/grader/enter.py",
            json.dumps({"uid": uid, "limits": limits.for_one_process()}),
        ]
        wrap = [
            "bwrap",
            *rights,
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--hostname",
            "grader",
            "--die-with-parent",
            "--new-session",
            "--info-fd",
            str(info_write),
            "--seccomp",
            str(filter_read),
            "--clearenv",
            *variables({**environment(HOME), **view.environment}),
            *mounts(view, limits),
            "--",
        ]
        return _Command([*wrap, *entry, *argv], {}, None), [info_write, filter_read], info_read

    def _group(self, process: subprocess.Popen[bytes], info: int) -> Group:
        text = b""
        while chunk := os.read(info, 4096):
            text += chunk
        try:
            return Group(namespace=namespace_of(json.loads(text)["child-pid"]))
        except (ValueError, KeyError, OSError):
            _, stderr = process.communicate()
            raise LabsError(
                "bubblewrap could not build the sandbox: " + stderr.decode(errors="replace").strip()[-500:],
                "see 'When the sandbox does not start' in docs/INSTRUCTORS.md",
            ) from None

    def _uid(self) -> int:
        with self._lock:
            self._next_uid += 1
            return FIRST_UID + (os.getpid() % 1000) * 100 + self._next_uid % 100

    # -- trusted -----------------------------------------------------------------------------------------------------

    def _plain(self, stack: contextlib.ExitStack, argv: Sequence[str], limits: Limits, view: View) -> _Command:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="labs-grade-", ignore_cleanup_errors=True))
        mark = uuid.uuid4().hex
        variables_inside = {**environment(home), **view.environment, MARK: mark, "PATH": os.environ.get("PATH", "")}
        argv = [part.replace("/grader/", f"{INSIDE}/").replace(HOME, home) for part in argv]
        entry = [
            sys.executable,
            "-I",
            "-S",
            str(INSIDE / "enter.py"),
            json.dumps({"uid": None, "limits": limits.for_one_process()}),
        ]
        cwd = view.cwd if view.cwd and view.cwd.exists() else Path(home)
        return _Command([*entry, *argv], variables_inside, Group(mark=mark), cwd)


@dataclass(frozen=True)
class _Command:
    argv: list[str]
    env: dict[str, str]
    group: Group | None
    cwd: Path | None = None


@contextlib.contextmanager
def _nobody(_group: Group) -> Iterator[None]:
    yield


# -- is it there? ----------------------------------------------------------------------------------------------------


def ready(report: Callable[[str], None] = lambda text: None, *, install: bool = True) -> Isolation:
    """Isolation by bubblewrap, tried once; installed by apt where that is possible without asking anyone.

    Raises:
        LabsError: bubblewrap is missing or does not work here; the message says what to do.
    """
    if shutil.which("bwrap") is None and install and os.geteuid() == 0 and shutil.which("apt-get"):
        report("installing bubblewrap (Debian package)")
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", "bubblewrap"],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    if shutil.which("bwrap") is None:
        raise LabsError(
            "submissions run in bubblewrap, which is not installed here",
            "sudo apt-get install bubblewrap; or --trust, if you have read every submission and trust it",
        )
    isolation = Isolation()
    limits = Limits(wall_s=20, cpu_s=20, memory_bytes=1 << 30, processes=16)
    probe = isolation.run(
        [sys.executable, "-c", "import labs_helpers.exercises; print('in')"],
        stdin=b"",
        limits=limits,
        view=course_view(),
    )
    if probe.stdout.strip() != b"in":
        why = (probe.stopped or probe.stderr.strip() or f"exit code {probe.returncode}")[-500:]
        raise LabsError(
            f"bubblewrap is installed but a program inside it cannot run: {why}",
            "see 'When the sandbox does not start' in docs/INSTRUCTORS.md",
        )
    return isolation


def raise_open_files() -> None:
    """Allow this process as many open files as it may have: a batch holds pipes for every running submission."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
