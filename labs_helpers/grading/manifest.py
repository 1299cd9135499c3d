"""manifest.csv: names, addresses and times of submissions, as the instructor has them."""

from __future__ import annotations

import csv
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from labs_helpers.errors import LabsError

FILES = ("manifest.csv", "submissions.csv")


def read(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of manifest.csv by student id: student_id, last_name, first_name, email, timestamp (ISO 8601)."""
    for name in FILES:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                rows = list(csv.DictReader(file))
            return {
                unicodedata.normalize("NFC", row["student_id"]).strip(): row for row in rows if row.get("student_id")
            }
    return {}


def parse_moment(text: str, what: str) -> datetime:
    """An ISO 8601 time; one without an offset is UTC. Raises LabsError that says what it was for."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise LabsError(f"{what} is {text!r}, not a time", "write it as 2026-11-30T23:59+01:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
