"""`./labs test`: every check the course has, stage by stage, the same here and in CI."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT


@dataclass(frozen=True)
class Stage:
    """One command of the test run."""

    name: str
    what: str
    argv: tuple[str, ...]
    needs_engines: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")

SPREAD = ("-p", "tests.spread", "--dist", "loadfile", "-n")
"""Workers share the tests by whole files, for their fixtures are dear."""
WORKERS = str(min(4, os.cpu_count() or 1))
ENGINES = "{engines}"
"""How many engines the tests may run side by side, filled in on the machine."""

STAGES = (
    Stage("lint", "ruff check", (sys.executable, "-m", "ruff", "check", ".")),
    Stage("format", "ruff format", (sys.executable, "-m", "ruff", "format", "--check", ".")),
    Stage("types", "mypy", (sys.executable, "-m", "mypy")),
    Stage("unit", "tests that start no engine", (*PYTEST, *SPREAD, WORKERS, "-m", "not engine", "tests")),
    Stage(
        "integration",
        "tests on real engines",
        (*PYTEST, *SPREAD, ENGINES, "-m", "engine", "tests"),
        needs_engines=True,
    ),
    Stage(
        "nbval",
        "student and solution notebooks, cell by cell",
        (
            *PYTEST,
            *SPREAD,
            ENGINES,
            "--nbval-lax",
            "--nbval-current-env",
            "--nbval-cell-timeout=900",
            "--timeout=1000",
            "notebooks/",
        ),
        needs_engines=True,
        env={"LABS_SCALE": "quick", "LABS_OUT": "{scratch}"},
    ),
)


def engines_side_by_side() -> int:
    """Two where each engine has memory of its own to take; one beside a GPU, whose memory an engine takes whole."""
    from labs_helpers import machine

    here = machine.detect()
    return 2 if here.gpu is None and here.memory_total >= 16 << 30 and (os.cpu_count() or 1) >= 2 else 1


def run(only: Sequence[str] = (), pytest_args: Sequence[str] = ()) -> int:
    """Run the stages in order, all of them even when one fails; 0 when every one passed.

    Raises:
        LabsError: a stage that does not exist.
    """
    names = [stage.name for stage in STAGES]
    if unknown := [name for name in only if name not in names]:
        raise LabsError(f"there is no test stage {unknown[0]!r}", f"stages: {', '.join(names)}")
    chosen = [stage for stage in STAGES if not only or stage.name in only]
    if any(stage.needs_engines for stage in chosen):
        from labs_helpers import runner
        from labs_helpers.engines.install import LIBRARIES
        from labs_helpers.syllabus import built

        runner.set_up(built(), LIBRARIES)
    lines, failed, engines = [], False, str(engines_side_by_side())
    for stage in chosen:
        print(f"== {stage.name}: {stage.what}", flush=True)
        started = time.monotonic()
        extra = pytest_args if "pytest" in stage.argv else ()
        with tempfile.TemporaryDirectory(prefix="labs-test-") as scratch:  # the student's own results stay as they are
            environment = {**os.environ, **{k: v.format(scratch=scratch) for k, v in stage.env.items()}}
            argv = [engines if word == ENGINES else word for word in stage.argv]
            code = subprocess.run([*argv, *extra], cwd=ROOT, env=environment, check=False).returncode
        failed |= code != 0
        lines.append(f"   {'ok' if code == 0 else 'FAILED'}  {stage.name:<12} {time.monotonic() - started:6.0f} s")
    print("\n".join(["", "stages:", *lines]))
    return 1 if failed else 0
