"""What a lab's points are given for: one TOML file per lab, and its hidden cases.

Exercises and measurements add up to 100. Reflection questions are read by a person: their points are given by hand,
on top, and the total never exceeds 100.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labs_helpers.engines.base import Engine
from labs_helpers.errors import LabsError
from labs_helpers.exercises import Case
from labs_helpers.grading.watch import Limits
from labs_helpers.results import LabResult, Requirement
from labs_helpers.syllabus import Entry, LabSpec, requirements

HERE = Path(__file__).parent
TOTAL = 100


class Measured(BaseModel):
    """One thing the notebook must have measured: a rule of `syllabus.requirements` with its arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    points: float = Field(gt=0)
    metric: str = ""
    """The metric it is about; '' for a rule that takes none."""
    args: dict[str, Any] = Field(default_factory=dict)

    def look(self, result: LabResult) -> Requirement:
        """Whether these results meet it."""
        given = (self.metric,) if self.metric else ()
        found: Requirement = getattr(requirements, self.rule)(*given, **self.args)(result)
        return found

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.rule.startswith("_") or not hasattr(requirements, self.rule):
            raise ValueError(f"there is no rule {self.rule!r} in labs_helpers/syllabus/requirements.py")
        try:
            self.look(LabResult(lab=""))
        except TypeError as error:
            raise ValueError(f"{self.rule} does not take these arguments: {error}") from None
        return self


class Plausibility(BaseModel):
    """How far a figure may lie above what the grader itself saw before it counts as forged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation_rate: float = Field(
        default=2.0, gt=1, description="times the fastest growth of the engine's own counter"
    )
    prompt_rate: float = Field(default=6.0, gt=1, description="the same for prompt tokens, whose bursts are shorter")
    tokens: float = Field(default=1.05, gt=1, description="times the engine's own total")
    roofline: float = Field(
        default=1.5, gt=1, description="times the bandwidth measured by the grader / bytes per token"
    )


class LabLimits(BaseModel):
    """Limits of the notebook run and of one exercise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_s: float = 1800
    cpu_s: float = 7200
    memory_mib: int = 12_288
    processes: int = 96
    disk_mib: int = 1024
    file_mib: int = 512
    output_mib: int = 20
    cell_s: float = 900
    student_cell_s: float = 60
    case_s: float = 5
    exercise_memory_mib: int = 1024

    def notebook(self) -> Limits:
        return Limits(
            wall_s=self.wall_s + 30,
            cpu_s=self.cpu_s,
            memory_bytes=self.memory_mib << 20,
            processes=self.processes,
            file_bytes=self.file_mib << 20,
            disk_bytes=self.disk_mib << 20,
        )

    def exercise(self, cases: int) -> Limits:
        """A process that answers so many cases; the slowest case is stopped sooner than this."""
        wall = 20 + 4 * self.case_s + self.case_s * cases
        return Limits(
            wall_s=wall,
            cpu_s=wall,
            memory_bytes=self.exercise_memory_mib << 20,
            processes=16,
            file_bytes=16 << 20,
            disk_bytes=64 << 20,
            answer_bytes=32 << 20,
        )


class Rubric(BaseModel):
    """The points of one lab.

    Raises:
        pydantic.ValidationError: exercises and measurements do not add up to 100.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lab: str
    exercises: dict[str, float]
    measurements: list[Measured] = Field(default_factory=list)
    questions: dict[str, float] = Field(default_factory=dict)
    plausibility: Plausibility = Field(default_factory=Plausibility)
    limits: LabLimits = Field(default_factory=LabLimits)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(self.exercises.values()) + sum(m.points for m in self.measurements)
        if abs(total - TOTAL) > 1e-6:
            raise ValueError(f"exercises and measurements add up to {total:g} points, not {TOTAL}")
        return self


@dataclass(frozen=True)
class GradedLab:
    """All that grading needs to know of one lab."""

    entry: Entry
    spec: LabSpec
    rubric: Rubric
    hidden: Mapping[str, Sequence[Case]]
    witnesses: Sequence[Engine] = ()
    """Engines the observer can recognise."""
    extra_folders: tuple[Path, ...] = ()
    """Read-only folders the notebook needs besides the course's own."""
    environment: Mapping[str, str] = field(default_factory=dict)

    files: tuple[Path, ...] = ()
    """Files the points depend on: the lab's visible and hidden cases."""

    @property
    def id(self) -> str:
        return self.entry.id

    def fingerprint(self) -> str:
        """A hash of the course notebook, the rubric and the cases."""
        digest = hashlib.sha256(self.rubric.model_dump_json().encode())
        for path in (self.entry.student, *self.files):
            digest.update(path.read_bytes() if path.exists() else b"")
        for name in self.rubric.exercises:
            digest.update(repr([(c.name, c.args, c.trace, hidden) for c, hidden in self.cases(name)]).encode())
        return digest.hexdigest()

    @property
    def uses_engines(self) -> bool:
        return bool(self.spec.engines)

    def cases(self, exercise: str) -> list[tuple[Case, bool]]:
        """All cases of an exercise, each with whether it is hidden; visible ones first."""
        return [(c, False) for c in self.spec.cases.get(exercise, ())] + [
            (c, True) for c in self.hidden.get(exercise, ())
        ]


def load(entry: Entry, *, cases: Path | None = None, rubrics: Path | None = None) -> GradedLab:
    """A lab of the course with its rubric and hidden cases.

    Args:
        entry: the lab.
        cases: folder with hidden cases outside the repository; a lab's file there replaces the one in grading/hidden.
        rubrics: the same for rubrics.

    Raises:
        LabsError: no rubric, or one that is wrong; the message names the file.
    """
    from labs_helpers.engines import registry

    spec = entry.spec()
    rubric = read(_first(rubrics, HERE / "rubrics", f"{entry.stem}.toml"))
    hidden_file = _first(cases, HERE / "hidden", f"{entry.stem}.py")
    hidden = read_cases(hidden_file)
    for name in rubric.exercises:
        if name not in spec.cases:
            raise LabsError(
                f"the rubric of lab {entry.id} gives points for {name!r}, which has no visible cases",
                f"add cases to labs_helpers/syllabus/{entry.stem}.py or mend the rubric",
            )
    return GradedLab(
        entry,
        spec,
        rubric,
        hidden,
        witnesses=registry.engines() if spec.engines else (),
        files=(HERE.parent / "syllabus" / f"{entry.stem}.py", hidden_file),
    )


def read(path: Path) -> Rubric:
    """Read a rubric. Raises LabsError that names the file and what is wrong in it."""
    try:
        return Rubric.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise LabsError(f"there is no rubric {path}", "see 'Add a lab' in docs/INSTRUCTORS.md") from None
    except (tomllib.TOMLDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise LabsError(f"{path} is not a rubric: {error}", "see 'Add a lab' in docs/INSTRUCTORS.md") from None


def read_cases(path: Path) -> Mapping[str, Sequence[Case]]:
    """The `CASES` of a Python file; none when there is no such file. Instructors write these: they are trusted."""
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"hidden_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found: Mapping[str, Sequence[Case]] = module.CASES
    except Exception as error:
        raise LabsError(
            f"the hidden cases in {path} cannot be read: {type(error).__name__}: {error}",
            "the file defines CASES = {exercise: (Case(...), ...)}",
        ) from error
    return found


def _first(chosen: Path | None, default: Path, name: str) -> Path:
    return chosen / name if chosen and (chosen / name).exists() else default / name
