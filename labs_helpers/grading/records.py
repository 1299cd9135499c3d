"""What grading one submission leaves: typed, as JSON on disk, the same whether it ran here or on another machine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from labs_helpers.results import LabResult

ItemKind = Literal["exercise", "measurement", "question"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Student(_Record):
    """Who handed in. Only the id is certain; an LMS export brings the rest."""

    id: str
    last_name: str = ""
    first_name: str = ""
    email: str = ""


class CaseRow(_Record):
    """One case of an exercise; `message` is empty for hidden ones."""

    name: str
    hidden: bool
    passed: bool
    message: str = ""


class Item(_Record):
    """One thing that earns points."""

    kind: ItemKind
    name: str
    points: float
    most: float
    status: str
    reason: str = ""
    cases: tuple[CaseRow, ...] = ()
    manual: bool = False
    """True when an instructor set the points; `reason` is then their comment."""


class Grade(_Record):
    """One student's lab, graded."""

    student: Student
    lab: str
    key: str
    """Fingerprint of the submission and of all that grading it depends on; the same key is never graded twice."""
    submitted_at: str = ""
    items: tuple[Item, ...] = ()
    status: Literal["graded", "rejected", "failed"] = "graded"
    reason: str = ""
    """Why there is nothing to grade, or what went wrong in the run; '' when all went well."""
    notes: tuple[str, ...] = ()
    result: LabResult | None = None
    """The student's own figures, those that the grader believes."""
    answers: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    engine_seconds: float = 0.0
    """Of these, time in which an engine was alive."""

    @property
    def raw_score(self) -> float:
        """Points of 100; reflection points lift it to 100 at most."""
        return round(min(100.0, sum(item.points for item in self.items)), 2)
