"""What `./labs` does before the package is installed: build `.venv`, then become `python -m labs_helpers.cli`.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from labs_helpers import venvs
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT, cache_dir

VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "environment" / "kernel.txt"

FIRST_HELP = """\
Usage: ./labs COMMAND [OPTIONS]

Module 3.3: Model Deployment & Inference Engines. Seven labs on real engines.

Commands:
  run [LAB ...]   set up what is missing, run the labs headless, write the report
  test            set up what is missing, run all tests
  lab             open JupyterLab with the course kernel
  doctor          what this machine can run, what is missing, how to fix it
  engines         install, start, stop one engine; show its log
  grade DIR       instructors: grade a folder of submissions
  check LAB       students: check your notebook against the visible cases
  progress        the module's milestones, from the results on disk
  build, model, clean   authors

Nothing is set up yet: the first command other than --help makes .venv (a few minutes, about 2 GB).
"""


def expected_key() -> str:
    """Fingerprint of everything `.venv` is built from."""
    return venvs.key(ROOT / "pyproject.toml", CONSTRAINTS)


def set_up(report: venvs.Report) -> None:
    """Build `.venv`: CPU PyTorch first, then the package and its dependencies at the versions of kernel.txt."""
    steps = (
        venvs.TORCH,
        venvs.Step("the labs and their libraries", ("-c", str(CONSTRAINTS), "-e", f"{ROOT}[test]")),
    )
    venvs.build(
        VENV,
        steps,
        expected=expected_key(),
        title="Setting up .venv",
        report=report,
        log=cache_dir() / "logs" / "venv.log",
    )


def progress_line(text: str) -> None:
    """One updating line on a terminal, one line per finished step elsewhere."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        end = "\n" if ": done in " in text else ""
        print("\r\x1b[K" + text[:width], end=end, flush=True)
    elif ": done in " in text or "waiting" in text or text.endswith("..."):
        print(text, flush=True)


def main(args: Sequence[str]) -> int:
    """Set up when needed, then replace this process by the command line proper."""
    try:
        if not venvs.ready(VENV, expected_key()):
            if not args or args[0] in ("--help", "-h", "help"):
                print(FIRST_HELP)
                return 0
            set_up(progress_line)
    except LabsError as error:
        print(f"labs: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nlabs: interrupted; nothing half-installed counts as installed, run the same command again",
            file=sys.stderr,
        )
        return 130
    python = str(venvs.python(VENV))
    os.environ["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv(python, [python, "-m", "labs_helpers.cli", *args])  # noqa: S606
