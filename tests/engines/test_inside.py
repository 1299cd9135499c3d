"""A notebook's function in an engine's environment: its result comes back, its errors are readable, nothing stays."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labs_helpers.engines import inside, reaper
from labs_helpers.engines.base import LaunchSpec, ModelSpec, Server
from labs_helpers.errors import LabsError


class Elsewhere:
    """An engine whose environment is this interpreter with one setting more."""

    name, title = "elsewhere", "Elsewhere"

    def launch(self, model: ModelSpec, port: int, **options: Any) -> LaunchSpec:
        return LaunchSpec((sys.executable, "-m", "nothing"), env={"LABS_TEST_INSIDE": options.get("word", "none")})


@pytest.fixture
def server() -> Server:
    engine: Any = Elsewhere()
    model = ModelSpec("m", "nowhere", "fp32")
    return Server("http://127.0.0.1:1", engine, "1", model, Path(os.devnull), 0, 0.0, {"word": "there"})


def test_the_function_runs_with_the_engines_settings_in_another_process(server):
    def where(a, b):
        import os

        return {"sum": a + b, "word": os.environ["LABS_TEST_INSIDE"], "pid": os.getpid()}

    found = inside.call(server, where, 2, 3)
    assert (found["sum"], found["word"]) == (5, "there")
    assert found["pid"] != os.getpid()


def test_annotations_of_the_notebooks_own_imports_do_no_harm(server):
    def typed(values: list[Any]) -> Path:
        return sum(values)

    assert inside.call(server, typed, [1, 2]) == 3


def test_what_it_prints_is_printed_here(server, capfd):
    def talk():
        print("hello from there")

    assert inside.call(server, talk) is None
    assert capfd.readouterr().out == "hello from there\n"


def test_an_error_shows_its_last_lines_and_no_traceback_of_ours(server):
    def broken():
        return undefined_name  # noqa: F821

    with pytest.raises(LabsError, match="undefined_name") as caught:
        inside.call(server, broken)
    assert "broken failed in the environment of Elsewhere" in str(caught.value)


def test_a_result_that_is_no_json_is_an_error(server):
    def odd():
        return object()

    with pytest.raises(LabsError, match="not JSON serializable"):
        inside.call(server, odd)


def test_a_function_that_hangs_is_stopped(server):
    def hang():
        import time

        time.sleep(600)

    before = set(reaper.descendants(os.getpid()))
    started = time.monotonic()
    with pytest.raises(LabsError, match="took longer than 1 s"):
        inside.call(server, hang, timeout_s=1)
    assert time.monotonic() - started < 60
    assert set(reaper.descendants(os.getpid())) <= before
