"""Scoring exercises: a fresh isolated process calls the student's function, the judges stand outside.

The process gets the student's code and the arguments of the cases. It never gets what would be right, and the
student's kernel, where the notebook runs, never sees it at all.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labs_helpers.exercises import OPEN, Case, Outcome, verdict
from labs_helpers.grading.assemble import Assembled, definitions, helpers_only, imports_for
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.rubric import GradedLab
from labs_helpers.grading.view import HOME, View, program

TIMED_OUT = tuple(code for s in (signal.SIGPROF, signal.SIGALRM) for code in (128 + s, -s))
RESTARTS = 2
"""A case that never ends costs a process. After so many the rest of the cases count as not reached."""


@dataclass(frozen=True)
class CaseResult:
    """One case of one exercise."""

    name: str
    hidden: bool
    passed: bool
    message: str = ""
    """What was wrong. Of a hidden case never shown to the student."""


@dataclass(frozen=True)
class ExerciseScore:
    """What one exercise earned and why."""

    name: str
    points: float
    most: float
    status: Literal["passed", "partial", "failed", "open", "missing"]
    reason: str
    cases: tuple[CaseResult, ...] = ()
    survivable: bool = True
    """False when calling it killed or hung its process: such a cell is kept out of the measuring run."""


def score(lab: GradedLab, assembled: Assembled, pristine: Any, isolation: Isolation, view: View) -> list[ExerciseScore]:
    """Score every exercise the rubric gives points for."""
    return [
        _score_one(lab, name, most, assembled, pristine, isolation, view) for name, most in lab.rubric.exercises.items()
    ]


def _score_one(
    lab: GradedLab, name: str, most: float, assembled: Assembled, pristine: Any, isolation: Isolation, view: View
) -> ExerciseScore:
    source = assembled.exercises.get(name)
    if source is None:
        return ExerciseScore(name, 0, most, "missing", "the exercise cell is missing")
    target = _target(pristine, name)
    if target not in definitions(source):
        why = (
            "the cell cannot be parsed: " + _syntax_error(source)
            if _syntax_error(source)
            else (f"the cell does not define {target}")
        )
        return ExerciseScore(name, 0, most, "failed", why)
    cases = lab.cases(name)
    asked = Asked(lab, assembled, pristine, isolation, view, name, source, target)
    outcomes, trouble = asked.outcomes([case for case, _ in cases])
    results = [_judge(case, hidden, outcome) for (case, hidden), outcome in zip(cases, outcomes, strict=True)]
    return _total(name, most, results, outcomes, trouble)


def _total(
    name: str, most: float, results: list[CaseResult], outcomes: Sequence[Outcome], trouble: str
) -> ExerciseScore:
    survivable = not trouble
    if outcomes and all(o.is_open for o in outcomes):
        return ExerciseScore(name, 0, most, "open", "not started: it still returns `...`", tuple(results), survivable)
    passed = sum(r.passed for r in results)
    if all(o.error for o in outcomes):
        # raising on everything happens to satisfy the cases that ask for an error
        results = [CaseResult(r.name, r.hidden, False, r.message or "raises on every case") for r in results]
        passed = 0
    status: Literal["passed", "partial", "failed"] = (
        "passed" if passed == len(results) else "partial" if passed else "failed"
    )
    reason = trouble or f"{passed} of {len(results)} cases"
    return ExerciseScore(
        name, round(most * passed / max(len(results), 1), 2), most, status, reason, tuple(results), survivable
    )


def _judge(case: Case, hidden: bool, outcome: Outcome) -> CaseResult:
    try:
        found = verdict(case, outcome)
    except Exception as error:  # a judge met a value its author did not think of
        found = f"the result cannot be judged ({type(error).__name__})"
    found = "returns `...`" if found == OPEN else found
    return CaseResult(case.name, hidden, not found, found[:500])


@dataclass(frozen=True)
class Asked:
    """One exercise of one submission, ready to be called."""

    lab: GradedLab
    assembled: Assembled
    pristine: Any
    isolation: Isolation
    view: View
    name: str
    source: str
    target: str

    def outcomes(self, cases: Sequence[Case]) -> tuple[list[Outcome], str]:
        """The outcome of every case, and what went wrong with the process, '' when nothing did."""
        found: dict[int, Outcome] = {}
        trouble = ""
        for _ in range(1 + RESTARTS):
            left = [(i, case) for i, case in enumerate(cases) if i not in found]
            if not left:
                break
            rows, stopped = self._run(left)
            if (rows and rows[0].get("missing")) or not rows:
                why = stopped or (rows[0].get("trouble") if rows else "") or "its process died while the cell was read"
                outcome = Outcome(error="NotDefined", message=f"the cell did not define {self.target}: {why}")
                return [outcome] * len(cases), trouble or why
            asked = [row["asked"] for row in rows if "asked" in row]
            found |= {row["index"]: _outcome(row) for row in rows if "index" in row}
            lost = [index for index in asked if index not in found]
            if lost:
                trouble = trouble or (stopped or "its process died while it was called")
                found[lost[0]] = Outcome(error="Stopped", message=trouble)
            elif stopped:
                trouble = trouble or stopped
                break
        missing = Outcome(error="Stopped", message=trouble or "not reached")
        return [found.get(i, missing) for i in range(len(cases))], trouble

    def _run(self, cases: Sequence[tuple[int, Case]]) -> tuple[list[dict[str, Any]], str]:
        others = [s for n, s in self.assembled.exercises.items() if n != self.name and s]
        helpers = [text for s in (*self.assembled.added, *others) if (text := helpers_only(s))]
        job = {
            "imports": imports_for(self.pristine, [*helpers, self.source]),
            "cells": helpers,
            "own": self.source,
            "target": self.target,
            "case_s": self.lab.rubric.limits.case_s,
            "cases": [[i, list(case.args), case.trace] for i, case in cases],
        }
        view = View(self.view.folders, self.view.placeholders, environment=self.view.environment, cwd=Path(HOME))
        done = self.isolation.run(
            program("ask"),
            stdin=json.dumps(job).encode(),
            view=view,
            limits=self.lab.rubric.limits.exercise(len(cases)),
        )
        late = f"a case took longer than {self.lab.rubric.limits.case_s:g} s"
        return list(_rows(done.stdout)), done.stopped or (late if done.returncode in TIMED_OUT else "")


def _rows(text: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        value=row.get("value"),
        error=str(row.get("error") or ""),
        message=str(row.get("message") or "")[:300],
        is_open=row.get("is_open") is True,
    )


def _target(pristine: Any, name: str) -> str:
    """The function or class of an exercise: what its stub defines; the exercise's own name when in doubt."""
    cell = next((c for c in pristine.cells if c.id == f"exercise-{name}"), None)
    found = definitions(cell.source) if cell is not None else set()
    return name if name in found or not found else sorted(found)[0]


def _syntax_error(source: str) -> str:
    import ast

    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""
