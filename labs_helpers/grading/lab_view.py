"""What the notebook of a lab can see of the course while it is graded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labs_helpers.grading.rubric import GradedLab
from labs_helpers.grading.view import View, course_view
from labs_helpers.paths import cache_dir


def notebook_view(lab: GradedLab) -> View:
    """The course's library, and for a lab with engines their environments and models: read-only.

    The lab's source file exists inside (the syllabus asks whether a lab is built) but is empty: it holds solutions.
    """
    base = course_view(lab.extra_folders)
    environment = {**base.environment, **lab.environment, "LABS_CACHE": str(cache_dir()), "MPLBACKEND": "agg"}
    return View(
        folders=base.folders,
        placeholders=(lab.entry.source,),
        writable=(cache_dir(),) if lab.uses_engines else (),
        within=tuple(_installed()) if lab.uses_engines else (),
        environment=environment,
        cwd=lab.entry.student.parent,
    )


def _installed() -> Iterator[Path]:
    """What to show of the cache: each engine's environment, each model file, what vLLM knows of its models.

    The folders around them are private and can be written inside; all else is empty there.
    """
    for pattern in ("engines/*/", "model/*/*", "vllm/*/*"):
        yield from (path for path in sorted(cache_dir().glob(pattern)) if not path.is_symlink())
