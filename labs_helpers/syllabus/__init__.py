"""The module's seven labs: what each is called, needs, asks and must have measured.

One file per lab says all of that (`lab_3_3_1.py`); this one is the table of contents. A lab is *built* when its
source notebook exists.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.exercises import Case
from labs_helpers.paths import ROOT
from labs_helpers.results import LabResult, Requirement

NOTEBOOKS = ROOT / "notebooks"
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "profile": ("auto", "cpu", "spark", "cuda"),
    "scale": ("quick", "full"),
    "out": (),
}
"""What papermill may inject into every lab; an empty tuple means any text."""


@dataclass(frozen=True)
class LabSpec:
    """What one lab is, apart from its prose."""

    id: str
    title: str
    engines: tuple[str, ...]
    """Engines the lab measures, the ones `./labs run` installs."""
    requirements: tuple[Callable[[LabResult], Requirement], ...]
    """Each looks at the result and says whether one thing was measured; `lab.finish()` raises when one was not."""
    cases: Mapping[str, Sequence[Case]] = field(default_factory=dict)
    """Visible cases by exercise name. Hidden ones live with grading."""


@dataclass(frozen=True)
class Entry:
    """One line of the table of contents."""

    id: str
    slug: str
    milestone: str

    @property
    def stem(self) -> str:
        return "lab_" + self.id.replace(".", "_")

    @property
    def source(self) -> Path:
        return NOTEBOOKS / "source" / f"{self.stem}.py"

    @property
    def student(self) -> Path:
        return NOTEBOOKS / f"lab-{self.id}-{self.slug}.ipynb"

    @property
    def solution(self) -> Path:
        return NOTEBOOKS / "solutions" / f"lab-{self.id}-{self.slug}.ipynb"

    @property
    def built(self) -> bool:
        return self.source.exists()

    def spec(self) -> LabSpec:
        """The lab's own file. Raises LabsError when the lab is not built."""
        if not self.built:
            raise LabsError(f"lab {self.id} is not part of this release", "see ./labs progress for the ones that are")
        module = importlib.import_module(f"labs_helpers.syllabus.{self.stem}")
        spec: LabSpec = module.SPEC
        return spec


CONTENTS: tuple[Entry, ...] = (
    Entry("3.3.1", "engine-benchmark", "Comprehensive engine benchmark report"),
    Entry("3.3.2", "sglang-radix-attention", "SGLang deployment with RadixAttention tested"),
    Entry("3.3.3", "vllm-continuous-batching", "vLLM with continuous batching working"),
    Entry("3.3.4", "medusa", "Medusa speculative decoding speedup measured"),
    Entry("3.3.5", "eagle-3", "EAGLE-3 comparison completed"),
    Entry("3.3.6", "tensorrt-llm", "TensorRT-LLM engine built and tested"),
    Entry("3.3.7", "production-api", "Production FastAPI server implemented"),
)


def built() -> tuple[Entry, ...]:
    """The labs that exist in this checkout, in course order."""
    return tuple(entry for entry in CONTENTS if entry.built)


def find(name: str) -> Entry:
    """A lab by id ('3.3.1', '1'), slug, or file name.

    Raises:
        LabsError: no such lab; the message names the closest and lists all.
    """
    text = name.strip().lower()
    digits = re.search(r"3[._]3[._]([1-9])(?!\d)", text)
    wanted = f"3.3.{digits[1]}" if digits else (f"3.3.{text}" if re.fullmatch(r"[1-9]", text) else text)
    for entry in CONTENTS:
        if wanted in (entry.id, entry.slug, entry.stem):
            return entry
    close = difflib.get_close_matches(wanted, [e.id for e in CONTENTS] + [e.slug for e in CONTENTS], 1, 0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise LabsError(f"there is no lab {name!r}", hint + "labs: " + ", ".join(e.id for e in CONTENTS))
