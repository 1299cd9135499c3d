"""From grades to files: gradebook.csv with nbgrader's columns, grades.json, junit.xml, and the manual points."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from labs_helpers.errors import LabsError
from labs_helpers.grading.manifest import parse_moment
from labs_helpers.grading.records import Grade, Item
from labs_helpers.results import write_atomically

COLUMNS = ("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
           "late_submission_penalty", "score", "max_score")  # fmt: skip
MANUAL_COLUMNS = ("student_id", "lab", "item", "points", "max", "comment")
MAX_SCORE = 100.0


@dataclass(frozen=True)
class Policy:
    """When work was due and what being late costs."""

    deadline: datetime | None = None
    percent_per_day: float = 0.0

    def penalty(self, grade: Grade) -> float:
        """Points off: so many percent of the raw score for each day begun after the deadline."""
        if self.deadline is None or not self.percent_per_day or not grade.submitted_at:
            return 0.0
        late = parse_moment(grade.submitted_at, "a time of submission") - self.deadline
        if late <= timedelta(0):
            return 0.0
        days = math.ceil(late / timedelta(days=1))
        return round(min(grade.raw_score, grade.raw_score * self.percent_per_day * days / 100), 2)


# -- manual points ---------------------------------------------------------------------------------------------------

Manual = Mapping[tuple[str, str, str], tuple[float, str]]
"""(student, lab, item) -> (points, comment)."""


def read_manual(path: Path) -> Manual:
    """Points that an instructor filled in. Rows without points are still to be read.

    Raises:
        LabsError: a row whose points are no number; nothing is graded on a guess.
    """
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    for number, row in enumerate(_rows(path), 2):
        text = (row.get("points") or "").strip().replace(",", ".")
        if not text:
            continue
        try:
            points = float(text)
        except ValueError:
            points = math.nan
        if not math.isfinite(points) or points < 0:
            raise LabsError(
                f"{path}, line {number}: points are {text!r}, not a number", "mend that line; the file keeps all others"
            )
        found[_plain(row.get("student_id")), _plain(row.get("lab")), _plain(row.get("item"))] = (
            points,
            (row.get("comment") or "").strip(),
        )
    return found


def apply_manual(grade: Grade, manual: Manual) -> Grade:
    """The grade with an instructor's points in place of the automatic ones; never more than the item's most."""

    def override(item: Item) -> Item:
        given = manual.get((grade.student.id, grade.lab, item.name))
        if given is None:
            return item
        return item.model_copy(
            update={"points": min(given[0], item.most), "manual": True, "status": "set by hand", "reason": given[1]}
        )

    return grade.model_copy(update={"items": tuple(override(item) for item in grade.items)})


def write_manual(path: Path, grades: Iterable[Grade]) -> int:
    """Add a row for every question that is there to be read; rows that exist stay as they are.

    Returns:
        how many questions are still to be read.
    """
    rows = _rows(path)
    known = {(_plain(r.get("student_id")), _plain(r.get("lab")), _plain(r.get("item"))) for r in rows}
    for grade in grades:
        for item in grade.items:
            key = (grade.student.id, grade.lab, item.name)
            if item.kind == "question" and item.status == "to be read" and key not in known:
                rows.append(dict(zip(MANUAL_COLUMNS, (*map(safe_cell, key), "", f"{item.most:g}", ""), strict=True)))
    text = io.StringIO()
    writer = csv.DictWriter(text, MANUAL_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
    return sum(1 for row in rows if not (row.get("points") or "").strip())


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _plain(text: str | None) -> str:
    """A cell as it was before `safe_cell` put a quote in front."""
    text = (text or "").strip()
    return text[1:] if text.startswith("'") and text[1:2] in FORMULA else text


# -- files -----------------------------------------------------------------------------------------------------------

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula (OWASP, CSV injection), without line breaks."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", value).strip()
    return "'" + text if text.startswith(FORMULA) else text


def row(grade: Grade, policy: Policy) -> dict[str, Any]:
    """One line of the gradebook."""
    penalty = policy.penalty(grade)
    return {
        "assignment": f"lab-{grade.lab}" if grade.lab else "unknown",
        "duedate": policy.deadline.isoformat() if policy.deadline else "",
        "timestamp": grade.submitted_at,
        "student_id": grade.student.id,
        "last_name": grade.student.last_name,
        "first_name": grade.student.first_name,
        "email": grade.student.email,
        "raw_score": grade.raw_score,
        "late_submission_penalty": penalty,
        "score": round(grade.raw_score - penalty, 2),
        "max_score": MAX_SCORE,
    }


def write(out: Path, grades: Sequence[Grade], policy: Policy) -> None:
    """Write gradebook.csv, grades.json and junit.xml."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for grade in grades:
        writer.writerow({key: safe_cell(value) for key, value in row(grade, policy).items()})
    write_atomically(out / "gradebook.csv", text.getvalue())
    records = [
        {**grade.model_dump(mode="json", exclude={"result", "answers"}), **row(grade, policy)} for grade in grades
    ]
    write_atomically(out / "grades.json", json.dumps(records, indent=1, ensure_ascii=False))
    write_atomically(out / "junit.xml", junit(grades))


def junit(grades: Sequence[Grade]) -> str:
    """JUnit XML: one suite per student and lab, one case per thing that earns points."""
    suites = []
    for grade in grades:
        cases = [_junit_case(grade, item) for item in grade.items if item.kind != "question"]
        if grade.status != "graded" or grade.reason:
            body = f"<error message={_attribute(grade.reason)}/>" if grade.status != "graded" else ""
            cases.insert(0, f'<testcase classname={_attribute(grade.student.id)} name="submission">{body}</testcase>')
        failures = sum("<failure" in case for case in cases)
        errors = sum("<error" in case for case in cases)
        suites.append(
            f'<testsuite name={_attribute(f"{grade.student.id} lab {grade.lab}")} tests="{len(cases)}" '
            f'failures="{failures}" errors="{errors}" time="{grade.seconds:.2f}">{"".join(cases)}</testsuite>'
        )
    return '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>' + "\n".join(suites) + "</testsuites>\n"


def _junit_case(grade: Grade, item: Item) -> str:
    body = ""
    if item.points < item.most:
        body = f"<failure message={_attribute(f'{item.points:g} of {item.most:g}: {item.reason or item.status}')}/>"
    return (
        f"<testcase classname={_attribute(f'{grade.student.id}.{item.kind}')} name={_attribute(item.name)}>"
        f"{body}</testcase>"
    )


def _attribute(text: str) -> str:
    clean = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
    return quoteattr(clean)


def summary(grades: Sequence[Grade]) -> str:
    """Two lines for the terminal."""
    scores = sorted(g.raw_score for g in grades)
    rejected = sum(g.status != "graded" for g in grades)
    middle = scores[len(scores) // 2] if scores else 0
    return f"{len(grades)} graded, {rejected} without a score; median {middle:g}, best {scores[-1] if scores else 0:g}"
