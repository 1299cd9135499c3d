"""Only a student's exercise cells and added cells reach the graded notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from labs_helpers.grading.assemble import assemble, definitions, helpers_only, imports_for
from labs_helpers.grading.reading import read_notebook
from labs_helpers.grading.rubric import GradedLab

Solved = Callable[[], Any]


@pytest.fixture
def pristine(toy: GradedLab) -> Any:
    return read_notebook(toy.entry.student)


def sources(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells]


def test_the_solution_brings_its_exercises_and_nothing_else(pristine: Any, solved: Solved) -> None:
    found = assemble(pristine, solved())
    assert not found.added and not found.notes
    assert [c.id for c in found.notebook.cells] == [c.id for c in pristine.cells]
    changed = [a.id for a, b in zip(pristine.cells, found.notebook.cells, strict=True) if a.source != b.source]
    assert changed == ["exercise-double", "exercise-total"]


def test_changed_course_cells_are_ignored(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    for cell in theirs.cells:
        if not cell.id.startswith("exercise-"):
            cell.source = "raise SystemExit"
    assert sources(assemble(pristine, theirs).notebook) == sources(assemble(pristine, solved()).notebook)


def test_an_added_cell_stays_after_the_cell_it_followed(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    at = next(i for i, c in enumerate(theirs.cells) if c.id == "exercise-double")
    theirs.cells.insert(at + 1, nbformat.v4.new_code_cell("mine = 1"))
    ids = [c.id for c in assemble(pristine, theirs).notebook.cells]
    assert ids[ids.index("exercise-double") + 1].startswith("added-")


def test_an_added_cell_never_comes_before_the_parameters(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    theirs.cells.insert(0, nbformat.v4.new_code_cell("first = 1"))
    found = assemble(pristine, theirs).notebook
    ids = [c.id for c in found.cells]
    assert ids.index("parameters") < next(i for i, name in enumerate(ids) if name.startswith("added-"))


def test_metadata_of_added_cells_does_not_come_along(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    cell = nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["parameters", "raises-exception"], "labs": {"x": 1}})
    theirs.cells.append(cell)
    added = assemble(pristine, theirs).notebook.cells[-1]
    assert added.metadata == {"labs": {"added": True}}


def test_a_missing_exercise_keeps_the_stub(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    theirs.cells = [c for c in theirs.cells if c.id != "exercise-double"]
    found = assemble(pristine, theirs)
    assert found.exercises["double"] is None
    assert "the exercise cell of double is missing" in found.notes
    assert "YOUR CODE HERE" in next(c.source for c in found.notebook.cells if c.id == "exercise-double")


def test_an_exercise_can_be_left_out(pristine: Any, solved: Solved) -> None:
    found = assemble(pristine, solved(), without=["double"])
    assert "YOUR CODE HERE" in next(c.source for c in found.notebook.cells if c.id == "exercise-double")


def test_an_answer_is_read_whatever_it_was_called(pristine: Any, solved: Solved) -> None:
    theirs = solved()
    cell = next(c for c in theirs.cells if c.id == "question-why")
    cell.source += "\n\nBecause memory is slow."
    cell.id = "renamed"
    found = assemble(pristine, theirs)
    assert found.answered["why"] and "memory is slow" in found.answers["why"]
    assert not assemble(pristine, solved()).answered["why"]


def test_helpers_are_definitions_without_deeds() -> None:
    text = helpers_only("import math\nN = 3\nM = input()\nprint('x')\ndef f(): return math.pi\nlab.check('a', f)")
    assert "import math" in text and "N = 3" in text and "def f" in text
    assert "print" not in text and "input" not in text and "lab" not in text


def test_only_imports_that_are_used_are_made(pristine: Any) -> None:
    assert imports_for(pristine, ["def f(x): return math.sqrt(x)"]) == ["import math"]


@pytest.mark.parametrize("source", ["def f(:", "\0", "(" * 5000, "x = " + "-" * 50_000 + "1"])
def test_a_cell_that_cannot_be_parsed_defines_nothing(source: str) -> None:
    assert definitions(source) == set()
    assert helpers_only(source) == ""
