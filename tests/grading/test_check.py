"""`./labs check`: the visible cases only, by the machinery that grades."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labs_helpers.cli import app
from labs_helpers.grading import check
from labs_helpers.grading.rubric import GradedLab


def test_a_solved_notebook_passes_its_visible_cases(toy: GradedLab) -> None:
    scored = check.check(toy, toy.entry.solution)
    assert [(s.name, s.status, len(s.cases)) for s in scored] == [("double", "passed", 2), ("total", "passed", 2)]


def test_an_unfinished_one_is_open_and_a_wrong_one_is_told_its_case(toy: GradedLab, tmp_path: Path) -> None:
    notebook = json.loads(toy.entry.student.read_text())
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-total":
            cell["source"] = "def total(numbers):\n    return 6"
    (tmp_path / "mine.ipynb").write_text(json.dumps(notebook))
    lines = check.lines(check.check(toy, tmp_path / "mine.ipynb"))
    assert lines[0].startswith("… double: not started")
    assert lines[1] == "✗ total: 1 of 2 cases; none: expected 0, got 6"


def test_the_command_knows_the_real_lab(tmp_path: Path) -> None:
    from labs_helpers import syllabus

    entry = syllabus.find("3.3.1")
    solved = CliRunner().invoke(app, ["check", "3.3.1", str(entry.solution)])
    assert solved.exit_code == 0, solved.output
    assert solved.output.count("✓") == 5
    started = CliRunner().invoke(app, ["check", "1"])
    assert started.exit_code == 1 and started.output.count("…") == 5


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_broken_notebook_is_a_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.ipynb").write_text(content)
    found = CliRunner().invoke(app, ["check", "3.3.1", str(tmp_path / "x.ipynb")])
    assert found.exit_code != 0 and "notebook" in str(found.exception)
