"""`./labs check`: a student's own notebook against the visible cases, by the same machinery that grades."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.grading import exercises
from labs_helpers.grading.assemble import assemble
from labs_helpers.grading.exercises import ExerciseScore
from labs_helpers.grading.isolate import Isolation, ready
from labs_helpers.grading.lab_view import notebook_view
from labs_helpers.grading.reading import Rejected, read_notebook
from labs_helpers.grading.rubric import GradedLab


def check(lab: GradedLab, notebook: Path | None = None) -> list[ExerciseScore]:
    """Score every exercise on its visible cases only. Starts no engine and runs no other cell.

    Raises:
        LabsError: the notebook cannot be read.
    """
    path = notebook or lab.entry.student
    try:
        submitted = read_notebook(path)
    except Rejected as error:
        raise LabsError(f"{path}: {error}", f"./labs check {lab.id} NOTEBOOK") from None
    visible = dataclasses.replace(lab, hidden={})
    pristine = read_notebook(lab.entry.student)
    return exercises.score(visible, assemble(pristine, submitted), pristine, _isolation(), notebook_view(visible))


def _isolation() -> Isolation:
    """Bubblewrap where it is and works; a student may run their own code without it."""
    if shutil.which("bwrap"):
        try:
            return ready(install=False)
        except LabsError:
            pass
    return Isolation(trusted=True)


def lines(scored: list[ExerciseScore]) -> list[str]:
    """What the student reads: one line per exercise, and the first case that fails."""
    marks = {"passed": "✓", "partial": "✗", "failed": "✗", "open": "…", "missing": "?"}
    found = []
    for s in scored:
        first = next((f"{c.name}: {c.message}" for c in s.cases if not c.passed), "")
        detail = s.reason if s.status in ("passed", "open", "missing") or not first else f"{s.reason}; {first}"
        found.append(f"{marks[s.status]} {s.name}: {detail}")
    return found
