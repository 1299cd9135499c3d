"""A batch: resumed by content, the same twice, late, filtered, with points by hand, and stopped cleanly."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labs_helpers.errors import LabsError
from labs_helpers.grading import batch, isolate, jobs
from labs_helpers.grading.batch import Options
from labs_helpers.grading.gradebook import Policy
from labs_helpers.grading.records import Grade
from labs_helpers.grading.rubric import GradedLab
from labs_helpers.paths import ROOT

Grades = dict[str, float]


@pytest.fixture
def root(toy: GradedLab, tmp_path: Path) -> Path:
    """Two students: one handed in the solution, one the notebook as it was."""
    for name, source in (("ada", toy.entry.solution), ("bob", toy.entry.student)):
        (tmp_path / "in" / name).mkdir(parents=True)
        path = tmp_path / "in" / name / "lab-3.3.9-toy.ipynb"
        path.write_bytes(source.read_bytes())
        os.utime(path, (1_790_000_000, 1_790_000_000))
    return tmp_path / "in"


@pytest.fixture
def run(toy: GradedLab, root: Path, tmp_path: Path) -> Callable[..., tuple[Grades, list[str]]]:
    def grade(**options: Any) -> tuple[Grades, list[str]]:
        said: list[str] = []
        found = batch.grade(root, Options(out=tmp_path / "out", **options), said.append, lambda lab_id: toy)
        return {g.student.id: g.raw_score for g in found}, said

    return grade


def test_a_rerun_repeats_nothing_that_is_unchanged(
    run: Callable[..., tuple[Grades, list[str]]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, said = run(jobs=2)
    assert first == {"ada": 100, "bob": 30}
    assert "2 to grade, 0 unchanged" in said[0]
    files = ("gradebook.csv", "grades.json", "junit.xml")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files}

    graded: list[str] = []
    real = batch.grade_job
    monkeypatch.setattr(batch, "grade_job", lambda job, *rest: graded.append(job.name) or real(job, *rest))
    again, said = run(jobs=2)
    assert again == first and not graded
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == before

    notebook = json.loads((root / "bob" / "lab-3.3.9-toy.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-total":
            cell["source"] = "def total(numbers):\n    return sum(numbers)"
    (root / "bob" / "lab-3.3.9-toy.ipynb").write_text(json.dumps(notebook))
    changed, _ = run()
    assert changed == {"ada": 100, "bob": 60} and graded == ["bob lab 3.3.9"]

    # points by hand change the page and the sum, and nothing is graded for it
    graded.clear()
    rows = list(csv.DictReader((tmp_path / "out" / "manual.csv").open()))
    assert rows == []
    (tmp_path / "out" / "manual.csv").write_text(
        "student_id,lab,item,points,max,comment\nbob,3.3.9,why,10,10,<b>fine</b>\n"
    )
    by_hand, _ = run()
    assert by_hand == {"ada": 100, "bob": 70} and not graded
    assert "&lt;b&gt;fine&lt;/b&gt;" in (tmp_path / "out" / "feedback" / "bob" / "lab-3.3.9.html").read_text()

    # a deadline changes the score only
    due = datetime.fromtimestamp(1_790_000_000 - 3600, UTC)
    run(policy=Policy(due, 10))
    rows = list(csv.DictReader((tmp_path / "out" / "gradebook.csv").open()))
    assert [(r["raw_score"], r["late_submission_penalty"], r["score"]) for r in rows if r["student_id"] == "ada"] == [
        ("100.0", "10.0", "90.0")]  # fmt: skip
    assert not graded


def test_two_fresh_runs_give_the_same_scores(
    run: Callable[..., tuple[Grades, list[str]]], toy: GradedLab, root: Path, tmp_path: Path
) -> None:
    first, _ = run(jobs=2)
    second = batch.grade(root, Options(out=tmp_path / "other"), lambda line: None, lambda lab_id: toy)
    assert {g.student.id: g.raw_score for g in second} == first


def test_a_dry_run_starts_nothing(
    run: Callable[..., tuple[Grades, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "ready", lambda *a, **k: pytest.fail("a sandbox was started"))
    found, said = run(dry_run=True)
    assert found == {} and sum("to grade" in line for line in said) == 3


def test_only_the_named_lab_is_graded(run: Callable[..., tuple[Grades, list[str]]]) -> None:
    assert run(only=("3.3.1",), dry_run=True)[1] == ["0 submissions: 0 to grade, 0 unchanged"]


def test_an_error_of_the_grader_is_one_row_and_is_tried_again(
    run: Callable[..., tuple[Grades, list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = jobs.grade
    broken = {"bob"}

    def sometimes(lab: GradedLab, student: Any, *args: Any, **kwargs: Any) -> Any:
        if student.id in broken:
            raise ZeroDivisionError("a mistake of ours")
        return real(lab, student, *args, **kwargs)

    monkeypatch.setattr(jobs, "grade", sometimes)
    assert run()[0] == {"ada": 100, "bob": 0}
    record = Grade.model_validate_json((tmp_path / "out" / "state" / "bob" / "lab-3.3.9.json").read_bytes())
    assert record.status == "failed" and "a mistake of ours" in record.reason
    broken.clear()
    found, said = run()
    assert found == {"ada": 100, "bob": 30} and "1 to grade, 1 unchanged" in said[0]


def test_without_bubblewrap_it_refuses_unless_trusted(
    run: Callable[..., tuple[Grades, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate.shutil, "which", lambda name: None)
    with pytest.raises(LabsError, match="--trust"):
        run()
    assert run(trust=True)[0] == {"ada": 100, "bob": 30}


INTERRUPTED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
from conftest import make_toy
from labs_helpers.grading import batch
folder = Path(sys.argv[1])
lab = make_toy(folder / "lab")
cell = '{{"cell_type": "code", "id": "mine", "metadata": {{}}, "source": "import time; time.sleep(600)"}}'
for name in ("a", "b", "c"):
    (folder / "in" / name).mkdir(parents=True)
    text = '{{"nbformat": 4, "metadata": {{"labs": {{"lab": "3.3.9"}}}}, "cells": [' + cell + "]}}"
    (folder / "in" / name / "lab-3.3.9.ipynb").write_text(text)
say = lambda line: print(line, flush=True)
batch.grade(folder / "in", batch.Options(out=folder / "out", jobs=2), say, lambda lab_id: lab)
"""


def test_ctrl_c_ends_every_sandbox(tmp_path: Path) -> None:
    code = INTERRUPTED.format(root=str(ROOT), here=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout
    assert "3 to grade" in process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (children := sandboxes(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def sandboxes(parent: int) -> list[int]:
    """bubblewrap processes that this process started."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in task.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "bwrap":
                    found.append(int(pid))
    return found
