"""The toy lab, its notebooks, and a sandbox, for all grading tests."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "toy"), str(HERE)]

import toy_lab  # noqa: E402

from labs_helpers import course, syllabus  # noqa: E402
from labs_helpers.grading import isolate, rubric  # noqa: E402
from labs_helpers.grading.isolate import Isolation  # noqa: E402
from labs_helpers.grading.rubric import GradedLab  # noqa: E402
from labs_helpers.paths import ROOT  # noqa: E402


def make_toy(folder: Path) -> GradedLab:
    """The toy lab with its notebooks built into `folder`."""
    entry = toy_lab.register(folder)
    course.write(entry)
    about = HERE / "toy_course"
    return GradedLab(
        entry,
        toy_lab.SPEC,
        rubric.read(about / "rubric.toml"),
        rubric.read_cases(about / "hidden.py"),
        witnesses=(toy_lab.ToyEngine(),),
        extra_folders=(HERE / "toy",),
        environment={"PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE / "toy")))},
    )


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> GradedLab:
    before = syllabus.CONTENTS
    try:
        return make_toy(tmp_path_factory.mktemp("toy"))
    finally:
        syllabus.CONTENTS = before


@pytest.fixture(scope="module", autouse=True)
def toy_in_the_syllabus(toy: GradedLab) -> Iterator[None]:
    """Only while a module of this folder runs: other tests look at the real syllabus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(syllabus, "CONTENTS", (*syllabus.CONTENTS, toy.entry))
        yield


@pytest.fixture(scope="session")
def isolation() -> Isolation:
    return isolate.ready()


@pytest.fixture
def solved(toy: GradedLab) -> Callable[[], Any]:
    """A fresh copy of the solved notebook."""
    import nbformat

    notebook = nbformat.read(toy.entry.solution, as_version=4)
    return lambda: copy.deepcopy(notebook)
