"""The command line. Each command reads its arguments, calls one function elsewhere and prints what it returned."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from labs_helpers import cli_engines, cli_model
from labs_helpers.cli_options import RESULTS, Json, Out, pairs
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT

app = typer.Typer(
    name="labs",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Module 3.3: Model Deployment & Inference Engines. Seven labs on real engines.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_engines.app, name="engines")
app.add_typer(cli_model.app, name="model")


@app.command()
def run(
    labs: Annotated[list[str] | None, typer.Argument(help="e.g. 3.3.1; all that are built when none is named")] = None,
    scale: Annotated[str | None, typer.Option(help="quick or full [default: full for named labs, else quick]")] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu, spark or cuda")] = "auto",
    student: Annotated[bool, typer.Option("--student", help="Run the student notebooks, not the solutions.")] = False,
    out: Out = RESULTS,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, passed to the notebook")] = None,
) -> None:
    """Set up what is missing, run labs headless, write notebooks, results and one HTML report."""
    from labs_helpers import lab, runner

    given = {"scale": scale or ("full" if labs else "quick"), "profile": profile, **pairs(parameter or [])}
    lab.validate_parameters(given)
    entries = runner.choose(labs or [])
    runner.require_writable(out)
    runner.set_up(entries)
    ran = runner.run_all(entries, out=out, student=student, parameters=given)
    raise typer.Exit(0 if ran and all(r.ok for r in ran) else 1)


@app.command()
def test(
    only: Annotated[list[str] | None, typer.Option(help="lint, format, types, unit, integration or nbval")] = None,
    pytest_args: Annotated[list[str] | None, typer.Argument(help="passed to pytest, after --")] = None,
) -> None:
    """Set up what is missing and run all tests, the same as CI."""
    from labs_helpers import selftest

    raise typer.Exit(selftest.run(only or [], pytest_args or []))


@app.command()
def lab(
    name: Annotated[str | None, typer.Argument(help="the lab to open, e.g. 3.3.1")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port on 127.0.0.1")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """JupyterLab with the course kernel."""
    from labs_helpers import runner, syllabus

    runner.open_lab(syllabus.find(name) if name else None, port, browser)


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="folder (one entry per student), zip, or a single notebook")],
    out: Annotated[Path, typer.Option(help="Folder for gradebook, feedback and state.")] = ROOT / "grades",
    jobs: Annotated[int, typer.Option(min=1, max=256, help="submissions at a time; engine labs take turns")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="only this lab")] = None,
    scale: Annotated[str, typer.Option(help="quick or full")] = "quick",
    deadline: Annotated[str | None, typer.Option(help="ISO 8601, e.g. 2026-11-30T23:59+01:00")] = None,
    late_penalty: Annotated[float, typer.Option(min=0, max=100, help="percent off per day begun")] = 0.0,
    cases: Annotated[Path | None, typer.Option(help="folder of hidden cases outside the repository")] = None,
    rubrics: Annotated[Path | None, typer.Option(help="folder of rubrics outside the repository")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run without bubblewrap; you trust every submission.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be graded.")] = False,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster, e.g. auto or ray://HOST:10001")] = None,
) -> None:
    """Instructors: grade submissions in isolation; gradebook, feedback pages, JUnit."""
    from labs_helpers import lab as lab_module
    from labs_helpers.grading import batch, manifest
    from labs_helpers.grading.gradebook import Policy

    lab_module.validate_parameters({"scale": scale})
    due = manifest.parse_moment(deadline, "--deadline") if deadline else None
    options = batch.Options(
        out=out,
        jobs=jobs,
        only=tuple(only or ()),
        scale=scale,
        trust=trust,
        cases=cases,
        rubrics=rubrics,
        policy=Policy(due, late_penalty),
        dry_run=dry_run,
        ray=ray,
    )
    batch.grade(submissions, options, lambda line: print(line, flush=True))


@app.command()
def check(
    lab: Annotated[str, typer.Argument(help="e.g. 3.3.1")],
    notebook: Annotated[Path | None, typer.Argument(help="your notebook; the course's own when not named")] = None,
) -> None:
    """Students: your exercises against the visible cases, the way grading runs them."""
    from labs_helpers import syllabus
    from labs_helpers.grading import check as module
    from labs_helpers.grading import rubric

    scored = module.check(rubric.load(syllabus.find(lab)), notebook)
    print("\n".join(module.lines(scored)))
    raise typer.Exit(0 if all(s.status == "passed" for s in scored) else 1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can run, what is missing, and how to fix it."""
    from labs_helpers import doctor as module

    found = module.examine()
    print(found.model_dump_json(indent=1)) if as_json else module.render(found)
    raise typer.Exit(0 if found.ready else 1)


@app.command()
def progress(out: Out = RESULTS, as_json: Json = False) -> None:
    """The module's milestones, from the results on disk."""
    from labs_helpers import progress as module

    rows = module.milestones(out)
    if as_json:
        print(json.dumps([row.model_dump() for row in rows], indent=1))
        return
    for row in rows:
        mark = {"reached": "[x]", "started": "[~]"}.get(row.state, "[ ]")
        detail = ", ".join(part for part in (row.state, row.exercises, row.finished) if part)
        print(f"{mark} {row.lab}  {row.milestone:<48} {detail}")


@app.command()
def build(
    execute: Annotated[bool, typer.Option("--execute", help="Also run the solutions and keep their outputs.")] = False,
    lab: Annotated[list[str] | None, typer.Option(help="only this lab")] = None,
) -> None:
    """Authors: write the student and solution notebooks from notebooks/source/."""
    from labs_helpers import course, syllabus

    wanted = [syllabus.find(name) for name in lab] if lab else list(syllabus.built())
    for entry in wanted:
        entry.spec()
        for path in course.write(entry):
            print(path.relative_to(ROOT))
        if execute:
            course.execute(entry)


@app.command()
def clean(
    cache: Annotated[bool, typer.Option("--cache", help="Also the engines' environments and built models.")] = False,
) -> None:
    """Remove results and build products of this checkout."""
    import shutil

    from labs_helpers.paths import cache_dir

    doomed = [RESULTS, *ROOT.glob("*.egg-info"), *(ROOT / name for name in ("build", ".mypy_cache", ".ruff_cache"))]
    for path in [*doomed, *([cache_dir()] if cache else [])]:
        if path.exists():
            print(f"removing {path}")
            shutil.rmtree(path)


def main() -> None:
    """Run the command line; a LabsError is a message and its exit code, Ctrl-C is 130."""
    try:
        app(prog_name="labs")
    except LabsError as error:
        print(f"labs: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer turns Ctrl-C into exit 130 without a word
            raise
        print("\nlabs: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"labs: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
