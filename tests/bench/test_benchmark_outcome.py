"""A benchmark refuses a file that it could not write before it measures, and says errors without a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import outcome
from labs_helpers.errors import LabsError


def measured() -> dict[str, Any]:
    return {**outcome.head("nothing"), "value": 1}


def test_the_result_goes_into_the_file_and_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "result.json"
    assert outcome.run(outcome.parser("x").parse_args(["--json", "--out", str(out)]), measured, print) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert json.loads(out.read_text())["value"] == 1


def test_a_file_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = outcome.parser("x").parse_args(["--out", str(tmp_path)])
    assert outcome.run(options, lambda: pytest.fail("it measured"), print) == 2
    assert f"cannot write {tmp_path}" in capsys.readouterr().err


def test_a_failed_measurement_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> dict[str, Any]:
        raise LabsError("the server died", "look at its log")

    assert outcome.run(outcome.parser("x").parse_args([]), fail, print) == 2
    assert "the server died" in capsys.readouterr().err


def test_a_busy_machine_is_said() -> None:
    assert "do not quote" in outcome.warning({"quiet": False, "load_average_before": 1.2})
    assert outcome.warning({"quiet": True, "load_average_before": 0.1}) == ""
