"""Grading one submission of one lab: assemble, score the exercises, run the notebook, hold its figures up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs_helpers.grading import exercises, measurements, roof
from labs_helpers.grading.assemble import Assembled, assemble
from labs_helpers.grading.isolate import Finished, Isolation
from labs_helpers.grading.lab_view import notebook_view
from labs_helpers.grading.measurements import Claim
from labs_helpers.grading.reading import Rejected, read_notebook
from labs_helpers.grading.records import CaseRow, Grade, Item, Student
from labs_helpers.grading.rubric import GradedLab
from labs_helpers.grading.view import HOME, View, program
from labs_helpers.grading.witness import Observer

RESULTS = f"{HOME}/results"
BLIND = "this machine was too busy to watch the run (blind for {:.0f} s): its figures prove nothing, grade it again"
Turn = Callable[[GradedLab], Any]
"""A context manager that lets one engine lab run at a time."""


@dataclass(frozen=True)
class Run:
    """The notebook run: what it handed back, what the observer saw."""

    finished: Finished
    answer: dict[str, Any]

    @property
    def trouble(self) -> str:
        """Why the run did not come to its end, '' when it did. A failing cell does not stop it."""
        if self.finished.stopped:
            return f"the run was {self.finished.stopped}"
        if not self.answer:
            return "the run was ended from inside and handed nothing back"
        return "" if self.answer.get("kind") in ("", "cell") else str(self.answer.get("error"))[:500]

    @property
    def cell_error(self) -> str:
        return str(self.answer.get("error"))[:500] if self.answer.get("kind") == "cell" else ""

    def claim(self) -> Claim:
        """The result file as handed back, with the grader's own times."""
        text, written, ended = (self.answer.get(k) for k in ("result", "result_mtime", "last_cell_end"))
        finished = self.finished.finished_at
        return Claim(
            text if isinstance(text, str) else None,
            _number(written),
            min(_number(ended) or 0.0, finished),
            self.finished.started_at,
            finished,
        )


def grade(
    lab: GradedLab,
    student: Student,
    path: Path,
    *,
    isolation: Isolation,
    scale: str,
    key: str = "",
    submitted_at: str = "",
    turn: Turn | None = None,
) -> tuple[Grade, Any]:
    """Grade a submission. Whatever it does becomes a reason in the grade, never an exception.

    Returns:
        the grade, and the executed notebook (the assembled one when it did not run) for the feedback page.
    """
    started = time.monotonic()
    common: dict[str, Any] = {"student": student, "key": key, "submitted_at": submitted_at}
    try:
        submitted = read_notebook(path)
    except Rejected as error:
        return rejected(lab, str(error), **common), None
    pristine = read_notebook(lab.entry.student)
    assembled = assemble(pristine, submitted)
    view = notebook_view(lab)
    scored = exercises.score(lab, assembled, pristine, isolation, view)
    deadly = [s.name for s in scored if not s.survivable]
    if deadly:
        assembled = assemble(pristine, submitted, without=deadly)
    with (turn or _nobody)(lab):
        began = time.monotonic()
        run, observer = run_notebook(lab, assembled, isolation, view, scale)
        engine_s = time.monotonic() - began if lab.uses_engines else 0.0
    figures, believed = measurements.score(lab, run.claim(), observer.evidence(), roof.of(lab))
    notes = [
        *assembled.notes,
        *(f"{n} was left out of the measuring run: calling it ended its process" for n in deadly),
    ]
    if run.cell_error:
        notes.append(f"a cell of the notebook failed: {run.cell_error}")
    if believed is not None:
        failed = [e for e in believed.engines if e.status == "failed" and e.reason]
        notes += [f"{e.engine} failed in this run: {e.reason.splitlines()[0][:200]}" for e in failed]
    items = (
        *_exercise_items(scored),
        *(
            Item(
                kind="measurement",
                name=f.name,
                points=f.points,
                most=f.most,
                status="met" if f.points else "missing",
                reason=f.reason,
            )
            for f in figures
        ),
        *_questions(lab, assembled),
    )
    blind = observer.was_blind and any(f.reason.startswith("not believed") for f in figures)
    found = Grade(
        **common,
        lab=lab.id,
        items=items,
        status="failed" if blind else "graded",
        reason=BLIND.format(observer.longest_gap_s) if blind else run.trouble,
        notes=tuple(notes),
        result=believed,
        answers=dict(assembled.answers),
        seconds=round(time.monotonic() - started, 2),
        engine_seconds=round(engine_s, 2),
    )
    return found, executed_notebook(run, assembled)


def rejected(lab: GradedLab, why: str, **common: Any) -> Grade:
    """A row with a reason and no points, for a submission in which there is nothing to grade."""
    items = (
        *(Item(kind="exercise", name=n, points=0, most=p, status="missing") for n, p in lab.rubric.exercises.items()),
        *(
            Item(kind="measurement", name=m.metric or m.rule, points=0, most=m.points, status="missing")
            for m in lab.rubric.measurements
        ),
    )
    return Grade(**common, lab=lab.id, items=items, status="rejected", reason=why)


def run_notebook(
    lab: GradedLab, assembled: Assembled, isolation: Isolation, view: View, scale: str
) -> tuple[Run, Observer]:
    """Run the assembled notebook in isolation with the observer beside it."""
    limits = lab.rubric.limits
    cwd = str(lab.entry.student.parent)
    job = {
        "notebook": assembled.notebook,
        "parameters": {"profile": "cpu", "scale": scale, "out": RESULTS},
        "cwd": cwd,
        "result": f"{RESULTS}/lab-{lab.id}.json",
        "cell_timeout_s": limits.cell_s,
        "student_timeout_s": limits.student_cell_s,
        "deadline_s": limits.wall_s,
        "output_bytes": limits.output_mib << 20,
    }
    observer = Observer(lab.witnesses, (*view.folders, *view.within), trusted=isolation.trusted)
    finished = isolation.run(
        program("run_notebook"),
        stdin=json.dumps(job).encode(),
        limits=limits.notebook(),
        view=view,
        observer=observer.watch,
    )
    try:
        answer = json.loads(finished.stdout)
    except (ValueError, RecursionError):
        answer = {}
    return Run(finished, answer if isinstance(answer, dict) else {}), observer


def executed_notebook(run: Run, assembled: Assembled) -> Any:
    """The notebook with its outputs, as far as it came; without them when nothing usable came back."""
    import nbformat

    try:
        notebook = nbformat.from_dict(run.answer["notebook"])
        nbformat.validate(notebook)
    except Exception:
        return assembled.notebook
    return notebook


def _exercise_items(scored: list[exercises.ExerciseScore]) -> Iterator[Item]:
    for s in scored:
        rows = tuple(
            CaseRow(name=c.name, hidden=c.hidden, passed=c.passed, message="" if c.hidden else c.message)
            for c in s.cases
        )
        yield Item(
            kind="exercise", name=s.name, points=s.points, most=s.most, status=s.status, reason=s.reason, cases=rows
        )


def _questions(lab: GradedLab, assembled: Assembled) -> Iterator[Item]:
    for name, most in lab.rubric.questions.items():
        answered = assembled.answered.get(name, False)
        yield Item(kind="question", name=name, points=0, most=most, status="to be read" if answered else "not answered")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@contextmanager
def _nobody(_lab: GradedLab) -> Iterator[None]:
    yield
