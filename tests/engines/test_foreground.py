"""One engine by hand: started in one terminal, stopped from another, its log read."""

from __future__ import annotations

import threading

import pytest

from labs_helpers.engines import foreground, process, registry
from labs_helpers.errors import LabsError


@pytest.fixture
def known_fake(fake, monkeypatch):
    """The fake engine, known by name."""
    engines = registry.engines()
    monkeypatch.setattr(registry, "engines", lambda: (*engines, fake))
    return fake


def test_stop_ends_the_engine_that_runs_whoever_started_it(known_fake, capsys, eventually):
    ran = threading.Thread(
        target=foreground.run, args=("fake",), kwargs={"precision": None, "model": None, "options": {"daemons": 1}}
    )
    ran.start()
    eventually(lambda: "engine_pid" in foreground.running() and len(known_fake.alive()) == 2, 20)
    eventually(lambda: "Ctrl-C stops it" in capsys.readouterr().out, 20)
    assert foreground.running()["engine"] == "fake"
    assert foreground.stop("vllm") == "vllm is not running; fake is (./labs engines stop fake)"
    assert foreground.stop(None) == "fake is stopped"
    ran.join(10)
    assert not ran.is_alive() and not known_fake.alive()
    assert foreground.running() == {}


def test_stopping_nothing_says_so():
    assert foreground.stop(None) == "no engine is running"
    with pytest.raises(LabsError, match="there is no engine 'vlm'"):
        foreground.stop("vlm")


def test_logs_are_the_last_lines_of_the_newest(known_fake):
    with pytest.raises(LabsError, match="there is no log of fake yet"):
        foreground.logs("fake", 3)
    with pytest.raises(LabsError), process.serve(known_fake, options={"die": 1}):
        pass
    path, *lines = foreground.logs("fake", 3).splitlines()
    assert path.endswith(".log") and lines == ["line 37", "line 38", "line 39"]
