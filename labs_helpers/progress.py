"""`./labs progress`: the module's milestones, read from the results on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from labs_helpers.errors import LabsError
from labs_helpers.results import LabResult
from labs_helpers.syllabus import CONTENTS


class Milestone(BaseModel):
    """One lab's line: reached only when a result on disk says that everything required was measured."""

    lab: str
    milestone: str
    state: str
    """'reached', 'started', 'open', or 'not in this release'."""
    exercises: str = ""
    finished: str = ""


def milestones(out: Path) -> list[Milestone]:
    """One line per lab of the module."""
    return [_milestone(entry.id, entry.milestone, entry.built, out) for entry in CONTENTS]


def _milestone(lab: str, text: str, is_built: bool, out: Path) -> Milestone:
    if not is_built:
        return Milestone(lab=lab, milestone=text, state="not in this release")
    path = out / f"lab-{lab}.json"
    if not path.exists():
        return Milestone(lab=lab, milestone=text, state="open")
    try:
        result = LabResult.read(path)
    except LabsError:
        return Milestone(lab=lab, milestone=text, state="open", exercises=f"unreadable: {path.name}")
    passed = sum(c.status == "passed" for c in result.checks)
    return Milestone(
        lab=lab,
        milestone=text,
        state="reached" if result.measured_everything else "started",
        exercises=f"{passed} of {len(result.checks)} exercises" if result.checks else "",
        finished=f"{result.finished_at:%Y-%m-%d %H:%M}" if result.finished_at else "",
    )
