"""An engine starts, answers, and is gone when its block ends, whatever faults it has."""

from __future__ import annotations

import asyncio
import json
import multiprocessing.shared_memory
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from labs_helpers.engines import ports, process
from labs_helpers.engines.base import ModelSpec
from labs_helpers.engines.progress import ProgressLine
from labs_helpers.errors import LabsError

SHM = Path("/dev/shm")


def port_of(server) -> int:
    return int(server.base_url.rsplit(":", 1)[1])


def test_it_answers_inside_the_block_and_is_gone_after_it(fake):
    with process.serve(fake, options={"delay": 0.3}) as server:
        assert ports.get_status(port_of(server), "/health") == 200
        assert server.startup_s >= 0.3
        assert server.pid in fake.alive()
        assert server.precision == "fp32"
        assert json.loads(fake.trace("request"))["model"] == "fake-model", "it was not warmed up"
        private = Path(fake.trace("tmpdir"))
        assert private.is_dir()
    assert not fake.alive()
    assert not private.exists()
    assert ports.listener(port_of(server)) is None


def test_async_with_does_the_same(fake):
    async def use() -> None:
        async with process.serve(fake) as server:
            assert ports.get_status(port_of(server), "/health") == 200

    asyncio.run(use())
    assert fake.processes() and not fake.alive()


def test_an_exception_in_the_block_stops_it(fake):
    with pytest.raises(ZeroDivisionError), process.serve(fake):
        raise ZeroDivisionError
    assert fake.processes() and not fake.alive()


def test_a_cancelled_start_leaves_nothing(fake, eventually):
    async def cancel_while_starting() -> None:
        async def use() -> None:
            async with process.serve(fake, options={"delay": 60}):
                pass

        task = asyncio.create_task(use())
        await asyncio.to_thread(eventually, fake.alive)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_while_starting())
    assert fake.processes() and not fake.alive()


def test_an_interrupt_while_it_starts_leaves_nothing(fake, monkeypatch):
    def interrupt(self: ProgressLine, text: str) -> None:
        if fake.alive():
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressLine, "show", interrupt)
    with pytest.raises(KeyboardInterrupt), process.serve(fake, options={"delay": 60}):
        pass
    assert fake.processes() and not fake.alive()


def test_one_that_dies_shows_its_last_lines_its_code_and_its_log(fake):
    with pytest.raises(LabsError) as caught, process.serve(fake, options={"die": 3}):
        pass
    message = str(caught.value)
    assert "exit code 3" in message
    assert "line 39" in message and "line 25" in message and "line 24\n" not in message
    log = Path(re.search(r"(\S+\.log)", caught.value.remedy)[1])
    assert "line 0" in log.read_text()


def test_one_that_is_killed_says_by_which_signal(fake):
    with (
        pytest.raises(LabsError, match="killed by signal 9"),
        process.serve(fake, options={"die_by": int(signal.SIGKILL)}),
    ):
        pass


def test_one_that_never_answers_is_given_up_and_stopped(fake):
    with (
        pytest.raises(LabsError, match="did not answer within 1 s"),
        process.serve(fake, options={"silent": True}, ready_timeout_s=1),
    ):
        pass
    assert fake.processes() and not fake.alive()


def test_one_that_refuses_the_first_request_is_not_called_ready(fake):
    with (
        pytest.raises(LabsError, match=r"refuses to complete a text \(400\): .*no such thing"),
        process.serve(fake, options={"refuse": True}),
    ):
        pass
    assert not fake.alive()


def test_one_that_is_deaf_to_sigterm_is_killed(fake):
    with process.serve(fake, options={"stubborn": True}):
        pass
    assert fake.processes() and not fake.alive()


def test_children_in_sessions_of_their_own_go_too(fake, eventually):
    with process.serve(fake, options={"daemons": 3}):
        eventually(lambda: len(fake.alive()) == 4)
    assert not fake.alive()


def test_its_shared_memory_goes_and_that_of_others_stays(fake):
    with process.serve(fake, options={"segment": True, "stubborn": True}):
        own = [SHM / fake.trace("segment"), SHM / fake.trace("semaphore")]
        assert all(path.exists() for path in own)
        other = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
        lock = multiprocessing.get_context("spawn").Semaphore()
    try:
        assert not [path for path in own if path.exists()]
        assert (SHM / other.name).exists()
        assert (SHM / f"sem.{lock._semlock.name.lstrip('/')}").exists()
    finally:
        other.close()
        other.unlink()


def test_only_one_engine_runs_at_a_time_and_the_message_names_it(fake):
    with process.serve(fake) as first, pytest.raises(LabsError) as caught, process.serve(fake):
        pass
    assert f"fake is already running (pid {first.pid}, started by this process)" in str(caught.value)
    assert "./labs engines stop" in caught.value.remedy
    with process.serve(fake):  # and the place is free again
        pass


def test_a_port_in_use_is_named_with_its_holder(fake):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(LabsError, match=rf"port {port} .*process {os.getpid()} "), process.serve(fake, port=port):
            pass


def test_a_port_lost_between_choice_and_start_is_replaced(fake, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken, free = held.getsockname()[1], ports.free()
        choices = iter([taken, free])
        monkeypatch.setattr(ports, "free", lambda: next(choices))
        monkeypatch.setattr(ports, "require_free", lambda port: None)
        with process.serve(fake) as server:
            assert port_of(server) == free


def test_a_stranger_on_the_port_is_not_taken_for_the_engine(fake, monkeypatch, tmp_path):
    """A healthy answer counts only when one of the engine's own processes listens."""
    other = type(fake)(tmp_path)
    with process.serve(other) as stranger:
        monkeypatch.setenv("LABS_CACHE", str(tmp_path / "second-cache"))
        monkeypatch.setattr(ports, "require_free", lambda port: None)
        with (
            pytest.raises(LabsError, match="taken by another process"),
            process.serve(fake, port=port_of(stranger), options={"delay": 30}),
        ):
            pass
    assert not fake.alive()


def test_a_cache_that_cannot_be_written_is_named(fake, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabsError, match="set LABS_CACHE"), process.serve(fake):
        pass


def test_a_program_that_is_not_there_is_named(fake, monkeypatch):
    from dataclasses import replace

    launch = fake.launch
    monkeypatch.setattr(fake, "launch", lambda model, port: replace(launch(model, port), argv=("/nowhere/engine",)))
    with pytest.raises(LabsError, match="cannot execute /nowhere/engine: No such file"), process.serve(fake):
        pass


def test_a_precision_it_does_not_serve_is_refused(fake):
    with pytest.raises(LabsError, match="Fake does not serve q8_0 here"), process.serve(fake, precision="q8_0"):
        pass
    with (
        pytest.raises(LabsError, match="given as bf16, but fp32"),
        process.serve(fake, precision="fp32", model=ModelSpec("m", "x", "bf16")),
    ):
        pass


def test_settings_of_this_process_do_not_reach_the_engine(fake, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    monkeypatch.setenv("KEPT", "yes")
    with process.serve(fake) as server:
        seen = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"MPLBACKEND" not in seen and b"KEPT=yes" in seen


def test_the_engine_starts_with_no_signal_ignored_that_its_guards_pass_over(fake):
    with process.serve(fake) as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
    ignored = int(re.search(r"SigIgn:\s+([0-9a-f]+)", status)[1], 16)
    assert not [s for s in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM) if ignored >> (s - 1) & 1]


def test_memory_of_a_tree_counts_shared_pages_once(fake):
    with process.serve(fake, options={"allocate": 100}) as server:
        assert len(fake.alive()) >= 1
        assert 100 <= server.memory_bytes() / 2**20 < 160, "a page that parent and child share counts once"


def test_memory_of_a_process_that_is_gone_is_an_error():
    with pytest.raises(LabsError, match="cannot read the memory"):
        process.tree_pss(2**22 + 1)


def test_progress_is_one_line_on_stdout(fake, capsys):
    with process.serve(fake, options={"delay": 0.2}):
        pass
    out, err = capsys.readouterr()
    assert re.fullmatch(r"Fake 1\.0: fake-model in fp32, ready after \d+\.\d s\n", out)
    assert err == ""
