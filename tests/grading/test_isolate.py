"""The walls of the sandbox, one by one, and the seccomp filter."""

from __future__ import annotations

import contextlib
import struct
import sys
import time
from pathlib import Path

import pytest

from labs_helpers.errors import LabsError
from labs_helpers.grading import isolate, seccomp, view
from labs_helpers.grading.isolate import Finished, Isolation
from labs_helpers.grading.view import course_view
from labs_helpers.grading.watch import Limits
from labs_helpers.paths import ROOT

LIMITS = Limits(wall_s=20, cpu_s=10, memory_bytes=300 << 20, processes=30, disk_bytes=16 << 20, file_bytes=8 << 20,
                answer_bytes=1 << 20)  # fmt: skip


def inside(isolation: Isolation, code: str, limits: Limits = LIMITS, stdin: bytes = b"") -> Finished:
    return isolation.run([sys.executable, "-c", code], stdin=stdin, limits=limits, view=course_view())


def test_what_goes_in_comes_out(isolation: Isolation) -> None:
    found = inside(isolation, "import sys; sys.stdout.write(sys.stdin.read().upper())", stdin=b"abc" * 100_000)
    assert found.stdout == b"ABC" * 100_000 and not found.stopped and found.returncode == 0


def test_it_has_no_rights_and_nothing_of_the_host(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "x")
    code = """
import os, pathlib
status = pathlib.Path("/proc/self/status").read_text()
caps = {line.split()[1] for line in status.splitlines() if line.startswith("Cap")}
print(caps, "NoNewPrivs:\\t1" in status, os.getuid() != 0, "HOST_SECRET" in os.environ)
print(sorted(p.name for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()) < ["9"])
print(open("/proc/net/dev").read().count(":"))
"""
    lines = inside(isolation, code).stdout.decode().splitlines()
    assert lines == ["{'0000000000000000'} True True False", "True", "1"]


@pytest.mark.parametrize("path", ["/x", "/usr/x", "/dev/x", "/grader/x", "/etc/x", f"{ROOT}/labs_helpers/x", "/proc/x"])
def test_the_system_is_read_only(isolation: Isolation, path: str) -> None:
    found = inside(isolation, f"open({path!r}, 'w')")
    assert found.returncode == 1 and "Error" in found.stderr


@pytest.mark.parametrize("name", ["grading/rubrics", "grading/hidden", "grading/score.py", "../tests", "../.git",
                                  "../notebooks"])  # fmt: skip
def test_rubrics_hidden_cases_tests_and_history_are_not_there(isolation: Isolation, name: str) -> None:
    path = ROOT / "labs_helpers" / name
    assert inside(isolation, f"import os; print(os.path.exists({str(path)!r}))").stdout == b"False\n"


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("while True: pass", Limits(2, 9, 1 << 30, 9)),
        ("import os\nwhile True: os.fork()", LIMITS),
        ("x = []\nwhile True: x.append(bytearray(b'y' * (1 << 23)))", LIMITS),
        ("while True: print('x' * 10_000)", LIMITS),
        ("import threading\nfor _ in range(2): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
         Limits(30, 1, 1 << 30, 9)),
    ],
    ids=["time", "processes", "memory", "output", "processor"],
)  # fmt: skip
def test_each_limit_stops_the_run_and_leaves_nothing(isolation: Isolation, code: str, limit: Limits) -> None:
    found = inside(isolation, code, limit)
    assert found.returncode != 0
    assert not found.left


@pytest.mark.parametrize(
    "code",
    [
        "f = open('big', 'wb')\nwhile True: f.write(b'x' * 100_000)",
        "for i in range(99): open(f'f{i}', 'wb').write(b'x' * (1 << 20))",
        "for i in range(99): open(f'/dev/shm/f{i}', 'wb').write(b'x' * (1 << 20))",
        "for i in range(99): open(f'/tmp/f{i}', 'wb').write(b'x' * (1 << 20))",
    ],
)
def test_disk_is_limited(isolation: Isolation, code: str) -> None:
    assert "OSError" in inside(isolation, code).stderr


def test_no_new_namespaces(isolation: Isolation) -> None:
    code = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.unshare(0x10000000), ctypes.get_errno())"
    assert inside(isolation, code).stdout == b"-1 1\n"


def test_background_processes_die_with_the_run(isolation: Isolation) -> None:
    mark = f"{time.time()}"
    found = inside(isolation, "import subprocess, sys\n"
                   f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', '{mark}'], "
                   "start_new_session=True)")  # fmt: skip
    assert found.returncode == 0
    commands = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(process.read_text())
    assert not any(mark in command for command in commands)


def test_a_sandbox_that_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "parents_of", lambda *_: ["--no-such-option"])
    with pytest.raises(LabsError, match="bubblewrap"):
        isolate.ready(install=False)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_whole_and_every_jump_lands_inside(machine: str) -> None:
    rows = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    for index, (code, if_true, if_false, _) in enumerate(rows):
        if code & 7 == 5:  # BPF_JMP
            assert index + 1 + max(if_true, if_false) < len(rows)
    assert rows[-1][0] == seccomp.RETURN and rows[-1][3] == seccomp.ALLOW


def test_a_processor_without_a_filter_is_refused() -> None:
    with pytest.raises(LabsError, match="riscv64"):
        seccomp.program("riscv64")
