"""Whoever is killed, nothing of an engine stays: no process, no port, no shared memory, no temporary folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from labs_helpers.engines import ports, reaper, runlock

SHM = Path("/dev/shm")
WITHIN_S = 5.0


@pytest.fixture
def notebook(fake):
    """A process that holds an engine, as a notebook kernel does; `options` are the fake server's faults."""
    started = []

    def start(**options) -> subprocess.Popen[bytes]:
        script = f"""
            import importlib.util, os, sys, time
            from pathlib import Path
            spec = importlib.util.spec_from_file_location("fakes", {str(Path(__file__).with_name("conftest.py"))!r})
            fakes = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(fakes)
            from labs_helpers.engines import process
            if os.environ.get("HOLD_FILES") and os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            with process.serve(fakes.FakeEngine(Path({str(fake.witness)!r})), options={options!r}) as server:
                if os.environ.get("HOLD_FILES") and os.fork() == 0:
                    time.sleep(30)
                    os._exit(0)
                Path({str(fake.witness)!r}, "url").write_text(server.base_url)
                time.sleep(600)
        """
        started.append(subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def guards() -> tuple[int, int]:
    """The outer and the inner guard of the engine that runs."""
    outer = runlock.read_lock(runlock.lock_path())["guard_pid"]
    return outer, reaper.descendants(outer)[0]


def nothing_is_left(fake) -> bool:
    shared = [SHM / fake.trace(name) for name in ("segment", "semaphore")]
    return not fake.alive() and not any(p.exists() for p in shared) and not Path(fake.trace("tmpdir")).exists()


def serving(fake) -> bool:
    return (fake.witness / "url").exists() and len(fake.alive()) == 3


def starting(fake) -> bool:
    return (fake.witness / "semaphore").exists() and len(fake.alive()) == 3


FAULTS = {"daemons": 2, "segment": True, "stubborn": True}


def test_killing_the_notebook_while_the_engine_serves(fake, notebook, eventually):
    kernel = notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    port = int(fake.trace("url").rsplit(":", 1)[1])
    assert ports.listener(port)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)
    assert ports.listener(port) is None


def test_killing_the_notebook_while_the_engine_starts(fake, notebook, eventually):
    kernel = notebook(delay=300, **FAULTS)
    eventually(lambda: starting(fake), 20)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_killing_the_notebooks_whole_process_group(fake, notebook, eventually):
    """Jupyter ends a kernel by its group."""
    kernel = notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_a_fork_of_the_notebook_that_lives_on_keeps_nothing_alive(fake, notebook, eventually, monkeypatch):
    """A fork inherits every open file of the kernel; the guard must not wait for those to close."""
    monkeypatch.setenv("HOLD_FILES", "1")
    kernel = notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)
    os.killpg(kernel.pid, signal.SIGKILL)  # the forks


@pytest.mark.parametrize("which", [0, 1], ids=["outer", "inner"])
def test_killing_one_guard_stops_the_engine(which, fake, notebook, eventually):
    notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    time.sleep(reaper.LOOK_S + 0.5)
    os.kill(guards()[which], signal.SIGKILL)
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_killing_the_notebook_and_one_guard_at_once(fake, notebook, eventually):
    kernel = notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    os.kill(guards()[0], signal.SIGKILL)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_an_engine_that_dies_takes_its_daemons_along(fake, notebook, eventually):
    notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    time.sleep(reaper.LOOK_S + 0.5)  # long enough for the guard to have seen what it holds
    os.kill(runlock.read_lock(runlock.lock_path())["engine_pid"], signal.SIGKILL)
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_ctrl_c_in_the_terminal_does_not_reach_the_guards(fake, notebook, eventually):
    """The kernel decides what an interrupt means; an engine that serves must not die of it."""
    kernel = notebook(**FAULTS)
    eventually(lambda: serving(fake), 20)
    for guard in guards():
        os.kill(guard, signal.SIGINT)
    time.sleep(0.3)
    assert len(fake.alive()) == 3
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    eventually(lambda: nothing_is_left(fake), WITHIN_S)


def test_descendants_are_complete_and_leave_out_strangers():
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 10
        while len(below := reaper.descendants(child.pid)) < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(below) == 1
        assert child.pid not in below and os.getpid() not in below
        assert child.pid in reaper.descendants(os.getpid())
        child.communicate(b"\n")
    assert reaper.descendants(child.pid) == []
