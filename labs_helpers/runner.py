"""`./labs run`: labs from top to bottom through papermill, then one report.

papermill's own cell status is not trusted (after a dead kernel it marks every cell completed): what counts is its
exception, and the result file that `lab.finish()` writes last.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.lab import validate_parameters
from labs_helpers.paths import ROOT
from labs_helpers.results import LabResult, write_atomically
from labs_helpers.syllabus import Entry, built, find

CELL_TIMEOUT_S = 900


@dataclass(frozen=True)
class Ran:
    """What became of one lab."""

    entry: Entry
    notebook: Path
    seconds: float
    result: LabResult | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and self.result is not None and self.result.measured_everything


def choose(names: Sequence[str]) -> tuple[Entry, ...]:
    """The labs to run: the named ones in the order given, or all that are built.

    Raises:
        LabsError: no such lab, or one that this release does not have.
    """
    entries = tuple(find(name) for name in names) if names else built()
    for entry in entries:
        entry.spec()
    return entries


def set_up(entries: Sequence[Entry], libraries: Sequence[str] = ()) -> None:
    """Install the engines these labs measure, and these libraries, where they can run here and are missing."""
    from labs_helpers import machine
    from labs_helpers.bootstrap import progress_line
    from labs_helpers.engines import install

    here = machine.detect()
    engines = [engine for entry in entries for engine in entry.spec().engines]
    for name in dict.fromkeys([*engines, *libraries]):
        if install.can_install(name, here) and not install.installed(name):
            install.install(name, progress_line)


def run(entry: Entry, *, out: Path, student: bool = False, parameters: Mapping[str, Any] | None = None) -> Ran:
    """Execute one lab's notebook into `out`.

    Raises:
        LabsError: a bad parameter. What goes wrong inside the notebook is in `Ran.error` instead.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from labs_helpers.kernels import private_sockets

    given = {"out": str(out.absolute()), **(parameters or {})}
    validate_parameters(given)
    source = entry.student if student else entry.solution
    target = out / source.name
    out.mkdir(parents=True, exist_ok=True)
    (out / f"lab-{entry.id}.json").unlink(missing_ok=True)
    started, error = time.monotonic(), ""
    try:
        with warnings.catch_warnings(), private_sockets() as config:
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=given,
                kernel_name="python3",
                cwd=str(source.parent),
                progress_bar={"file": sys.stdout, "desc": f"lab {entry.id}", "ncols": 88, "disable": None},
                execution_timeout=CELL_TIMEOUT_S,
                request_save_on_cell_execute=True,
                report_mode=False,
                config=config,
            )
    except papermill.PapermillExecutionError as failure:
        error = f"cell {failure.exec_count}: {_clean(failure.ename)}: {_clean(failure.evalue)}"
    except DeadKernelError:
        error = "the notebook's kernel died (out of memory?)"
    except (TimeoutError, RuntimeError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    result = None
    if (path := out / f"lab-{entry.id}.json").exists():
        result = LabResult.read(path)
    if not error and result is None:
        error = "the notebook ended without lab.finish(): nothing was recorded"
    return Ran(entry, target, time.monotonic() - started, result, error)


def run_all(entries: Sequence[Entry], *, out: Path, student: bool, parameters: Mapping[str, Any]) -> list[Ran]:
    """Run labs one after another (engines share the machine) and write report.html and measurements.csv."""
    from labs_helpers import report

    require_writable(out)
    done = []
    for entry in entries:
        print(f"lab {entry.id}, {entry.slug}: running", flush=True)
        ran = run(entry, out=out, student=student, parameters=parameters)
        print(
            f"lab {entry.id}: {'measured' if ran.ok else 'FAILED'} in {ran.seconds:.0f} s"
            + (f"\n  {ran.error}\n  -> the notebook as far as it came: {ran.notebook}" if ran.error else ""),
            flush=True,
        )
        done.append(ran)
    results = [r.result for r in done if r.result]
    if results:
        report.write_csv(results, out / "measurements.csv")
        page = report.write_report(results, out / "report.html", {r.entry.id: r.notebook for r in done})
        print(f"report: {page}")
    return done


def require_writable(folder: Path) -> None:
    """Raise LabsError now rather than after ten minutes of measuring when `folder` cannot take a file."""
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink()


def _clean(text: str | None) -> str:
    """The last lines of a message, without terminal colours."""
    import re

    return "\n  ".join(re.sub(r"\x1b\[[0-9;]*m", "", text or "").strip().splitlines()[-20:])


def jupyter_environment() -> dict[str, str]:
    """The environment for JupyterLab: the course's interpreter first on PATH, and its own settings, which leave out
    the news pop-up and the menus of nbgrader."""
    first = {"PATH": Path(sys.executable).parent, "JUPYTER_CONFIG_PATH": ROOT / "environment" / "jupyter"}
    return {**os.environ, **{k: os.pathsep.join(filter(None, (str(v), os.environ.get(k)))) for k, v in first.items()}}


def open_lab(entry: Entry | None, port: int, browser: bool) -> None:
    """Become JupyterLab on 127.0.0.1, opened at a lab's notebook. Does not return."""
    from labs_helpers.syllabus import NOTEBOOKS

    where = entry.student.name if entry else ""
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={NOTEBOOKS.parent}",
        f"--LabApp.default_url=/lab/tree/notebooks/{where}",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]
    if not NOTEBOOKS.exists():
        raise LabsError(f"{NOTEBOOKS} is missing", "get a fresh clone of the course")
    os.execve(sys.executable, command, jupyter_environment())  # noqa: S606
