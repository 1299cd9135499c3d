"""One unit of work: a submission of a lab, how it is graded, and what comes of it. Here or on another machine."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labs_helpers.grading.grade import grade, rejected
from labs_helpers.grading.gradebook import Policy
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.records import Grade
from labs_helpers.grading.rubric import GradedLab
from labs_helpers.grading.submission import Submission


@dataclass(frozen=True)
class Options:
    """How a batch is graded."""

    out: Path
    jobs: int = 1
    only: tuple[str, ...] = ()
    scale: str = "quick"
    trust: bool = False
    cases: Path | None = None
    rubrics: Path | None = None
    policy: Policy = field(default_factory=Policy)
    dry_run: bool = False
    ray: str | None = None


@dataclass(frozen=True)
class Job:
    """One submission of one lab, with the fingerprint that says whether it was graded before."""

    submission: Submission
    lab: GradedLab | None
    key: str

    @property
    def name(self) -> str:
        return f"{self.submission.student.id} lab {self.lab.id if self.lab else '?'}"


@dataclass(frozen=True)
class Graded:
    """What grading one job brought: the grade, and the executed notebook as JSON text ('' for none)."""

    grade: Grade
    notebook: str = ""


def grade_job(job: Job, options: Options, isolation: Isolation, turn: EngineTurn) -> Graded:
    """Grade one job. What goes wrong in the grader itself becomes a failed grade, which a rerun repeats."""
    s = job.submission
    stamp = s.submitted_at.isoformat() if s.submitted_at else ""
    common: dict[str, Any] = {"student": s.student, "key": job.key, "submitted_at": stamp}
    if job.lab is None:
        return Graded(Grade(**common, lab="", status="rejected", reason=s.problem))
    if s.problem:
        return Graded(rejected(job.lab, s.problem, **common))
    try:
        found, notebook = grade(
            job.lab,
            s.student,
            s.path,
            isolation=isolation,
            scale=options.scale,
            key=job.key,
            submitted_at=stamp,
            turn=turn,
        )
        return Graded(found, json.dumps(notebook) if notebook is not None else "")
    except Exception as error:  # one submission must not stop a class
        why = f"the grader itself failed on this one: {type(error).__name__}: {str(error)[:300]}"
        return Graded(Grade(**common, lab=job.lab.id, status="failed", reason=why))


class EngineTurn:
    """Lets one lab with engines run at a time: in this process by a lock, on this machine by the engines' own."""

    def __init__(self) -> None:
        self._here = threading.Lock()

    @contextmanager
    def __call__(self, lab: GradedLab) -> Iterator[None]:
        if not lab.uses_engines:
            yield
            return
        from labs_helpers.engines.runlock import lock_path

        with self._here, lock_path().open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            me = dict.fromkeys(("owner_pid", "guard_pid", "engine_pid"), os.getpid())
            file.truncate(0)
            file.write(json.dumps({"engine": "a lab that is being graded", "log": "none", **me}))
            file.flush()
            yield
