"""Every built lab on real engines, as an instructor would grade it: through papermill, isolated, watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labs_helpers import syllabus
from labs_helpers.grading import batch
from labs_helpers.grading.batch import Options
from labs_helpers.grading.records import Grade
from labs_helpers.syllabus import Entry

pytestmark = [pytest.mark.engine("all"), pytest.mark.slow, pytest.mark.timeout(1800)]


def graded(entry: Entry, folder: Path, **notebooks: Path) -> tuple[dict[str, Grade], object]:
    """The grades of some students' notebooks, and what to show when they are not as expected."""
    for name, source in notebooks.items():
        (folder / "in" / name).mkdir(parents=True)
        (folder / "in" / name / source.name).write_bytes(source.read_bytes())
    said: list[str] = []
    found = batch.grade(folder / "in", Options(out=folder / "out", jobs=2), said.append)
    return {g.student.id: g for g in found}, [(i.name, i.points, i.reason) for g in found for i in g.items] + said


@pytest.fixture(scope="module", params=syllabus.built(), ids=lambda entry: entry.id)
def solved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Grade, object]]:
    grades, detail = graded(request.param, tmp_path_factory.mktemp("solved"), solved=request.param.solution)
    yield grades["solved"], detail


def test_the_solution_scores_100(solved: tuple[Grade, object]) -> None:
    grade, detail = solved
    assert grade.raw_score == 100, detail


def test_its_totals_agree_with_the_engines_own_counters(solved: tuple[Grade, object]) -> None:
    grade, detail = solved
    assert grade.result is not None, detail
    totals = [m for m in grade.result.measurements if m.metric == "completion_tokens" and m.witness is not None]
    measured = {e.engine for e in grade.result.engines if e.status == "measured"}
    assert {m.engine for m in totals} >= measured - {"ollama"}, "which keeps no totals"
    assert [m for m in totals if m.witness_error > 0.02] == []


def test_the_untouched_notebook_scores_what_it_measured(tmp_path: Path) -> None:
    """Of one lab; that no lab gives exercise points for nothing is in test_course_labs.py."""
    entry = syllabus.find("3.3.1")
    grades, detail = graded(entry, tmp_path, untouched=entry.student)
    assert grades["untouched"].raw_score == 30, detail
