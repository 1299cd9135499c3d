"""The files an instructor gets: nbgrader's columns, safe cells, late penalties, manual points that survive."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.errors import LabsError
from labs_helpers.grading import gradebook
from labs_helpers.grading.gradebook import COLUMNS, Policy
from labs_helpers.grading.records import CaseRow, Grade, Item, Student

DUE = datetime(2026, 11, 20, 12, tzinfo=UTC)


def graded(student: str = "ada", points: float = 60, submitted_at: str = "2026-11-20T11:00:00+00:00") -> Grade:
    items = (
        Item(kind="exercise", name="tpot", points=points, most=70, status="partial",
             cases=(CaseRow(name="hidden one", hidden=True, passed=False),)),
        Item(kind="measurement", name="ttft of 3 engines", points=30, most=30, status="met"),
        Item(kind="question", name="why", points=0, most=5, status="to be read"),
    )  # fmt: skip
    return Grade(student=Student(id=student), lab="3.3.1", key="k", submitted_at=submitted_at, items=items)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_those_of_nbgraders_export(tmp_path: Path) -> None:
    from nbgrader.plugins.export import CsvExportPlugin

    source = Path(__import__("inspect").getsourcefile(CsvExportPlugin) or "").read_text()
    gradebook.write(tmp_path, [graded()], Policy())
    header = (tmp_path / "gradebook.csv").read_text().splitlines()[0].split(",")
    assert tuple(header) == COLUMNS
    assert all(f'"{name}"' in source for name in header)


@pytest.mark.parametrize(
    ("submitted", "percent", "penalty"),
    [
        ("2026-11-20T12:00:00+00:00", 10, 0),
        ("2026-11-20T13:00:00+01:00", 10, 0),
        ("2026-11-20T12:00:01+00:00", 10, 9),
        ("2026-11-22T11:00:00+00:00", 10, 18),
        ("2027-11-22T11:00:00+00:00", 10, 90),
        ("", 10, 0),
    ],
)
def test_late_work_loses_a_share_for_each_day_begun(submitted: str, percent: float, penalty: float) -> None:
    row = gradebook.row(graded(submitted_at=submitted), Policy(DUE, percent))
    assert (row["raw_score"], row["late_submission_penalty"], row["score"]) == (90, penalty, 90 - penalty)


def test_points_by_hand_count_on_top_and_never_exceed_the_most() -> None:
    manual = {("ada", "3.3.1", "why"): (50.0, "very good"), ("ada", "3.3.1", "tpot"): (69.0, "nearly")}
    found = gradebook.apply_manual(graded(), manual)
    assert [item.points for item in found.items] == [69, 30, 5]
    assert found.raw_score == 100
    assert [item.manual for item in found.items] == [True, False, True]


def test_what_an_instructor_wrote_survives_a_rerun(tmp_path: Path) -> None:
    path = tmp_path / "manual.csv"
    assert gradebook.write_manual(path, [graded("ada"), graded("=bob")]) == 2
    rows = read(path)
    rows[0]["points"], rows[0]["comment"] = "4,5", "well said"
    rows.append({"student_id": "ada", "lab": "3.3.1", "item": "tpot", "points": "12", "max": "", "comment": "by mail"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, gradebook.MANUAL_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    before = gradebook.read_manual(path)
    assert before["ada", "3.3.1", "why"] == (4.5, "well said")
    assert gradebook.write_manual(path, [graded("ada"), graded("=bob"), graded("new")]) == 2
    assert gradebook.read_manual(path) == before
    assert len(read(path)) == 4


def test_points_that_are_no_number_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "manual.csv").write_text("student_id,lab,item,points,max,comment\nada,3.3.1,why,five,5,\n")
    with pytest.raises(LabsError, match="line 2: points are 'five'"):
        gradebook.read_manual(tmp_path / "manual.csv")


@given(st.text())
def test_no_cell_is_a_formula_or_breaks_a_line(text: str) -> None:
    cell = gradebook.safe_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert not set(cell) & set("\n\r\0")


@given(st.text(), st.text())
def test_junit_is_xml_whatever_a_name_holds(name: str, reason: str) -> None:
    items = (Item(kind="exercise", name=name, points=0, most=10, status="failed", reason=reason),)
    grade = Grade(student=Student(id=name), lab="3.3.1", key="", status="rejected", reason=reason, items=items)
    suite = ET.fromstring(gradebook.junit([grade]))[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "1")


def test_grades_json_holds_what_the_gradebook_holds(tmp_path: Path) -> None:
    gradebook.write(tmp_path, [graded()], Policy(DUE, 10))
    (record,) = json.loads((tmp_path / "grades.json").read_text())
    assert record["raw_score"] == 90 and record["items"][0]["name"] == "tpot"
    assert float(read(tmp_path / "gradebook.csv")[0]["score"]) == 90
