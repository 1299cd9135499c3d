"""What grading gives for honest work: the solution, the untouched notebook, one exercise wrong, some cases right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs_helpers.grading.grade import grade
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.records import Grade, Student
from labs_helpers.grading.rubric import GradedLab

Solved = Callable[[], Any]


@pytest.fixture
def graded(toy: GradedLab, isolation: Isolation, tmp_path: Path) -> Callable[[Any], Grade]:
    def run(notebook: Any) -> Grade:
        path = tmp_path / "lab.ipynb"
        path.write_text(json.dumps(notebook))
        return grade(toy, Student(id="ada"), path, isolation=isolation, scale="quick")[0]

    return run


def points(found: Grade, kind: str) -> dict[str, float]:
    return {item.name: item.points for item in found.items if item.kind == kind}


def replace(notebook: Any, name: str, code: str) -> Any:
    next(cell for cell in notebook.cells if cell.id == f"exercise-{name}").source = code
    return notebook


def test_the_untouched_notebook_earns_what_measuring_earns(toy: GradedLab, graded: Callable[[Any], Grade]) -> None:
    found = graded(json.loads(toy.entry.student.read_text()))
    assert found.raw_score == 30
    assert set(points(found, "exercise").values()) == {0}
    assert {i.status for i in found.items if i.kind == "exercise"} == {"open"}


def test_one_wrong_exercise_loses_exactly_its_points(solved: Solved, graded: Callable[[Any], Grade]) -> None:
    found = graded(replace(solved(), "total", "def total(numbers):\n    return 'many'"))
    assert points(found, "exercise") == {"double": 40, "total": 0}
    assert found.raw_score == 70


def test_a_case_that_holds_earns_its_share(solved: Solved, graded: Callable[[Any], Grade]) -> None:
    found = graded(replace(solved(), "double", "def double(x):\n    return x + x"))
    assert points(found, "exercise")["double"] == 30
    (failed,) = [c for i in found.items for c in i.cases if not c.passed]
    assert failed.name == "a text is refused" and "expected TypeError" in failed.message


def test_helpers_in_added_cells_and_other_exercises_can_be_used(solved: Solved, graded: Callable[[Any], Grade]) -> None:
    import nbformat

    notebook = replace(solved(), "total", "def total(numbers):\n    return half(double(sum(numbers)))")
    notebook.cells.insert(
        4, nbformat.v4.new_code_cell("from operator import truediv\ndef half(x):\n    return truediv(x, 2)")
    )
    assert graded(notebook).raw_score == 100


def test_hidden_cases_are_named_and_their_messages_stay_out(solved: Solved, graded: Callable[[Any], Grade]) -> None:
    found = graded(replace(solved(), "total", "def total(numbers):\n    return max(numbers, default=0)"))
    hidden = [c for i in found.items for c in i.cases if c.hidden]
    assert len(hidden) == 4
    assert all(not c.message for c in hidden)
    assert any(not c.passed for c in hidden)
