"""`./labs run` on real engines, at quick scale: the first lab measures what it must, and leaves a report.

The other labs go through papermill in tests/grading/test_real_lab.py, which also grades what they measured.
"""

from __future__ import annotations

import json

import pytest

from labs_helpers import runner, syllabus
from labs_helpers.results import LabResult


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run of the lab's solution, with its report."""
    out = tmp_path_factory.mktemp("run")
    (found,) = runner.run_all([syllabus.find("3.3.1")], out=out, student=False, parameters={"scale": "quick"})
    return found


@pytest.mark.engine("all")
@pytest.mark.timeout(900)
def test_the_lab_measured_everything(ran):
    assert ran.error == ""
    assert ran.ok, [r for r in ran.result.requirements if not r.met]


@pytest.mark.engine("all")
def test_every_measured_figure_has_its_provenance(ran):
    for row in ran.result.measurements:
        if row.source == "measured":
            assert row.engine_version and row.machine and row.n >= 1
        else:
            assert row.cited_from


@pytest.mark.engine("all")
def test_totals_agree_with_the_engines_own_counters(ran):
    totals = [m for m in ran.result.measurements if m.metric == "completion_tokens" and m.witness is not None]
    assert len({m.engine for m in totals}) >= min(3, len(ran.entry.spec().engines))
    for row in totals:
        assert row.witness_error <= 0.02, row


@pytest.mark.engine("all")
def test_the_solution_passes_its_own_exercises(ran):
    assert {c.exercise for c in ran.result.checks} == set(syllabus.find(ran.entry.id).spec().cases)
    assert all(c.status == "passed" for c in ran.result.checks)


@pytest.mark.engine("all")
def test_nothing_went_to_stderr_and_the_report_is_there(ran):
    cells = json.loads(ran.notebook.read_text())["cells"]
    assert not [o["text"] for c in cells for o in c.get("outputs", ()) if o.get("name") == "stderr"]
    out = ran.notebook.parent
    assert "<svg" in (out / "report.html").read_text() or "data:image" in (out / "report.html").read_text()
    assert LabResult.read(out / f"lab-{ran.entry.id}.json").measured_everything
    assert (out / "measurements.csv").read_text().count("\n") > len(ran.result.measurements)
