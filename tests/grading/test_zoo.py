"""Every specimen of the zoo gets the points and the reason it must; the batch goes on; nothing is left running."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import zoo
from zoo import Specimen, specimens

from labs_helpers.grading import batch
from labs_helpers.grading.gradebook import COLUMNS
from labs_helpers.grading.names import safe_id
from labs_helpers.grading.records import Grade
from labs_helpers.grading.rubric import GradedLab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = [s.student for s in specimens(1, "'/nowhere'", Path("/nowhere"))]


@dataclass(frozen=True)
class Zoo:
    """The graded zoo."""

    grades: dict[str, Grade]
    specimens: dict[str, Specimen]
    out: Path
    connections: int
    target: Path


@pytest.fixture(scope="module")
def graded(toy: GradedLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    import nbformat

    root, out = tmp_path_factory.mktemp("submissions"), tmp_path_factory.mktemp("out")
    target = tmp_path_factory.mktemp("elsewhere") / "ZOO"
    os.environ["ZOO_SECRET"] = "a token of the host"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        animals = specimens(listener.getsockname()[1], f"{str(root)!r}, {str(out)!r}", target)
        for specimen in animals:
            specimen.write(root / specimen.student, nbformat.read(toy.entry.solution, as_version=4))
        grades = batch.grade(root, batch.Options(out=out, jobs=2), lambda line: None, lambda lab_id: toy)
        connections = 0
        try:
            while listener.accept():
                connections += 1
        except BlockingIOError:
            pass
    del os.environ["ZOO_SECRET"]
    yield Zoo({g.student.id: g for g in grades}, {s.student: s for s in animals}, out, connections, target)


def test_the_zoo_is_large_enough() -> None:
    assert len(NAMES) >= 25
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_specimen(graded: Zoo, name: str) -> None:
    expected, found = graded.specimens[name], graded.grades[safe_id(name)]
    reasons = [found.reason, *found.notes, *(item.reason for item in found.items)]
    assert found.raw_score == expected.score, reasons
    assert (found.status == "rejected") == expected.rejected, reasons
    assert found.status != "failed", reasons
    assert any(re.search(expected.reason, reason) for reason in reasons), reasons


def test_every_submission_has_one_row(graded: Zoo) -> None:
    with (graded.out / "gradebook.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(NAMES)
    assert all((graded.out / "feedback" / safe_id(name) / "lab-3.3.9.html").exists() for name in NAMES)


def belongs_to_another_worker(pid: int) -> bool:
    """Whether a worker that shares the tests with this one started the process, or it has ended meanwhile.

    What this zoo left behind has this worker above it, or nobody: an orphan is adopted by the first process.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return False
    try:
        above = {process.pid for process in psutil.Process(pid).parents()}
        workers = {process.pid for process in psutil.Process(os.getppid()).children()}
    except psutil.NoSuchProcess:
        return not psutil.pid_exists(pid)
    return bool((above | {pid}) & (workers - {os.getpid()}))


def test_nothing_is_left_running(graded: Zoo) -> None:
    left = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            suspect = any(word in command for word in (b"ZOO_LEFTOVER", b"/grader/", b"toy_server", b"bwrap"))
            if suspect and not belongs_to_another_worker(int(process.name)):
                left.append(command)
    assert not left


def test_no_connection_came_out(graded: Zoo) -> None:
    assert graded.connections == 0
    assert "CONNECTED" not in outputs(graded, "network-out").replace("print('CONNECTED')", "")


def test_nothing_was_written_outside(graded: Zoo) -> None:
    assert not graded.target.exists()
    assert not Path("/etc/ZOO").exists()
    assert not list(Path(zoo.__file__).parent.glob("toy/*ZOO"))


def test_hidden_cases_solutions_other_students_and_secrets_cannot_be_seen(graded: Zoo) -> None:
    assert "SEEN [] '' []" in outputs(graded, "looks-for-hidden-cases")


def test_the_page_of_a_hostile_notebook_runs_no_script(graded: Zoo) -> None:
    page = (graded.out / "feedback" / "hostile-page" / "lab-3.3.9.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(2)" in page
    assert "Content-Security-Policy" in page


def test_a_name_that_is_a_formula_stays_a_text(graded: Zoo) -> None:
    text = (graded.out / "gradebook.csv").read_text()
    assert not re.search(r"(^|,)=", text, re.MULTILINE)


def outputs(graded: Zoo, name: str) -> str:
    """All that a specimen's notebook printed."""
    notebook = json.loads((graded.out / "state" / name / "lab-3.3.9.ipynb").read_text())
    texts = [o.get("text", "") for c in notebook["cells"] for o in c.get("outputs", ())]
    return "\n".join("".join(t) if isinstance(t, list) else t for t in texts)
