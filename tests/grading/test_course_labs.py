"""The exercises of every lab that is built: the solution earns them all, each one wrong costs its own points.

The figures a lab must measure are graded in test_real_lab.py, on real engines.
"""

from __future__ import annotations

import copy
from typing import Any

import nbformat
import pytest

from labs_helpers import syllabus
from labs_helpers.grading import exercises, rubric
from labs_helpers.grading.assemble import assemble
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.lab_view import notebook_view
from labs_helpers.grading.reading import read_notebook
from labs_helpers.syllabus import Entry

LABS = syllabus.built()
EXERCISES = [(entry, name) for entry in LABS for name in rubric.load(entry).rubric.exercises]


def points(entry: Entry, submitted: Any, isolation: Isolation) -> dict[str, float]:
    lab, pristine = rubric.load(entry), read_notebook(entry.student)
    scored = exercises.score(lab, assemble(pristine, submitted), pristine, isolation, notebook_view(lab))
    return {found.name: found.points for found in scored}


def cell(notebook: Any, name: str) -> Any:
    return next(c for c in notebook.cells if c.id == f"exercise-{name}")


@pytest.mark.parametrize("entry", LABS, ids=lambda entry: entry.id)
def test_the_untouched_notebook_has_no_exercise_point(entry: Entry, isolation: Isolation) -> None:
    assert set(points(entry, nbformat.read(entry.student, as_version=4), isolation).values()) == {0}


@pytest.mark.parametrize("entry", LABS, ids=lambda entry: entry.id)
def test_the_rubric_adds_up_and_asks_for_every_exercise(entry: Entry) -> None:
    lab = rubric.load(entry)
    assert sum(lab.rubric.exercises.values()) + sum(m.points for m in lab.rubric.measurements) == 100
    assert set(lab.rubric.exercises) == set(entry.spec().cases)
    assert all(any(hidden for _, hidden in lab.cases(name)) for name in lab.rubric.exercises)


@pytest.mark.parametrize(("entry", "name"), EXERCISES, ids=lambda value: getattr(value, "id", value))
def test_an_exercise_left_open_costs_exactly_its_points(entry: Entry, name: str, isolation: Isolation) -> None:
    """In the solved notebook; all others keep theirs, so this is also what the whole solution earns."""
    solved = copy.deepcopy(nbformat.read(entry.solution, as_version=4))
    cell(solved, name).source = cell(nbformat.read(entry.student, as_version=4), name).source
    wanted = {**rubric.load(entry).rubric.exercises, name: 0}
    assert points(entry, solved, isolation) == wanted
