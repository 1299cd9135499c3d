"""Lab 3.3.1 on real engines, as an instructor would grade it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs_helpers import syllabus
from labs_helpers.grading import batch
from labs_helpers.grading.batch import Options


@pytest.mark.engine("vllm")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_solution_scores_100_and_the_untouched_notebook_what_it_measured(tmp_path: Path) -> None:
    entry = syllabus.find("3.3.1")
    for name, source in (("solved", entry.solution), ("untouched", entry.student)):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / source.name).write_bytes(source.read_bytes())
    said: list[str] = []
    grades = batch.grade(tmp_path / "in", Options(out=tmp_path / "out", jobs=2), said.append)
    detail = [(i.name, i.points, i.reason) for g in grades for i in g.items] + said
    assert {g.student.id: g.raw_score for g in grades} == {"solved": 100, "untouched": 30}, detail
