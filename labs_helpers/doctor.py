"""`./labs doctor`: what this machine is, what can run on it, what is missing, and the command that helps.

`ready` answers one question: can `./labs run 3.3.1` do its work here? It can when at least three of that lab's engines
are available or can be installed by it, the disk and the memory are enough for them, and Python is one the course
supports. Docker, compilers and bubblewrap are looked at too, but the CPU profile of that lab does without them.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT, cache_dir
from labs_helpers.results import EngineStatus

if TYPE_CHECKING:
    from rich.console import Console

    from labs_helpers.machine import Machine

GIB = 2**30
LAB = "3.3.1"
ENGINES_NEEDED = 3
MEMORY_NEEDED = 4 * GIB
"""vLLM's three processes take 2 GiB, the notebook kernel and the client under one."""
CACHE_NEEDED = 8 * GIB
"""The engines' environments and what pip unpacks on the way; once they are installed, a little is enough."""
RESULTS_NEEDED = GIB // 4
CACHE_NEEDED_LATER = GIB // 2
PYTHONS = ((3, 11), (3, 14))

Level = Literal["good", "missing", "blocking"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Finding(_Record):
    """One thing that was looked at. 'missing' limits something; 'blocking' stands in the way of the first lab."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


class BandwidthFigure(_Record):
    """Read bandwidth at one working set."""

    over: str
    gb_per_s: float | None
    source: Literal["measured", "published", "unknown"]
    working_set_bytes: int = 0
    detail: str = ""


class EngineRow(EngineStatus):
    """An engine's row; `installable` when the course can install it here by itself."""

    installable: bool = False


class Diagnosis(_Record):
    """Everything the doctor found."""

    ready: bool
    machine: dict[str, Any]
    card: str
    memory_total: int
    memory_available: int
    memory_source: str
    bandwidth: list[BandwidthFigure]
    findings: list[Finding]
    engines: list[EngineRow]

    @property
    def obstacles(self) -> list[Finding]:
        """What stands in the way of the first lab."""
        return [finding for finding in self.findings if finding.level == "blocking"]


def examine(results: Path | None = None) -> Diagnosis:
    """Look at everything; about three seconds, most of them for the bandwidth. Never raises for what it finds.

    Args:
        results: the folder of results whose disk is looked at; default the checkout's.
    """
    from rich.console import Console

    from labs_helpers import machine

    with Console().status("looking at this machine"):
        here = machine.detect()
        memory = machine.free_memory()
        engines = _engines(here)
        findings = [
            _python(),
            _memory(memory.available),
            *_disks(results or ROOT / "results", engines),
            *_tools(),
            *_containers(here),
            _enough_engines(engines),
        ]
        bandwidth = _bandwidth(here)
    return Diagnosis(
        ready=all(finding.level != "blocking" for finding in findings),
        machine=here.card(),
        card=str(here),
        memory_total=memory.total,
        memory_available=memory.available,
        memory_source=memory.source,
        bandwidth=bandwidth,
        findings=findings,
        engines=engines,
    )


def _engines(here: Machine) -> list[EngineRow]:
    from labs_helpers.engines import install, registry

    return [
        EngineRow(**row.model_dump(), installable=row.status == "unavailable" and install.can_install(row.engine, here))
        for row in registry.table(here)
    ]


def _enough_engines(engines: list[EngineRow]) -> Finding:
    ready = [row.engine for row in engines if row.status == "available"]
    to_install = [row.engine for row in engines if row.installable]
    detail = f"{len(ready)} available ({', '.join(ready) or 'none'})"
    if to_install:
        detail += f", {len(to_install)} to install ({', '.join(to_install)})"
    if len(ready) + len(to_install) < ENGINES_NEEDED:
        return Finding(
            name="engines",
            level="blocking",
            detail=f"{detail}; lab {LAB} compares at least {ENGINES_NEEDED}",
            remedy="see the reasons in the table of engines",
        )
    return Finding(
        name="engines", level="good", detail=detail, remedy=f"./labs run {LAB} installs them" if to_install else ""
    )


def _python() -> Finding:
    version = platform.python_version()
    low, beyond = PYTHONS
    if low <= sys.version_info[:2] < beyond:
        return Finding(name="Python", level="good", detail=version)
    return Finding(
        name="Python",
        level="blocking",
        detail=f"{version}; the course needs 3.11 to 3.13",
        remedy="sudo apt-get install python3.12 python3.12-venv",
    )


def _memory(available: int) -> Finding:
    detail = f"{available / GIB:.1f} GiB free"
    if available >= MEMORY_NEEDED:
        return Finding(name="free memory", level="good", detail=detail)
    return Finding(
        name="free memory",
        level="blocking",
        detail=f"{detail}; vLLM and its client need {MEMORY_NEEDED / GIB:.0f}",
        remedy="close other programs, or stop an engine: ./labs engines stop",
    )


def _disks(results: Path, engines: list[EngineRow]) -> list[Finding]:
    needed = CACHE_NEEDED if any(row.installable for row in engines) else CACHE_NEEDED_LATER
    return [
        _disk("disk of the cache", cache_dir(), needed, "free some space, or set LABS_CACHE to a folder elsewhere"),
        _disk("disk of the results", results, RESULTS_NEEDED, "free some space, or choose another folder with --out"),
    ]


def _disk(name: str, folder: Path, needed: int, remedy: str) -> Finding:
    """Space and permission where `folder` is or would be made."""
    import os

    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(name=name, level="blocking", detail=f"{folder}: {error.strerror}", remedy=remedy)
    if not existing.is_dir():
        return Finding(name=name, level="blocking", detail=f"{existing} is a file, not a folder", remedy=remedy)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(name=name, level="blocking", detail=f"{folder}: no permission to write", remedy=remedy)
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < needed:
        return Finding(name=name, level="blocking", detail=f"{detail}; {needed / GIB:.1f} needed", remedy=remedy)
    return Finding(name=name, level="good", detail=detail)


TOOLS = {
    "g++": ("g++", "compiled kernels in vLLM and the ahead-of-time engine of lab 3.3.6", "sudo apt-get install g++"),
    "git": ("git", "authors only", "sudo apt-get install git"),
    "bwrap": ("bubblewrap", "grading in isolation", "sudo apt-get install bubblewrap"),
}
"""Command: what it is called, what it is for, and how to get it on Debian and Ubuntu."""


def _tools() -> list[Finding]:
    return [
        Finding(name=title, level="good", detail=found)
        if (found := shutil.which(command))
        else Finding(name=title, level="missing", detail=f"not installed; for {use}", remedy=remedy)
        for command, (title, use, remedy) in TOOLS.items()
    ]


def _containers(here: Machine) -> list[Finding]:
    """Docker, and on a GPU machine whether containers can reach the GPU. The CPU profile does without both."""
    docker = here.docker
    if not docker.ready:
        return [
            Finding(
                name="Docker",
                level="missing",
                detail=f"{docker.reason} (the cpu profile does without)",
                remedy=docker.remedy,
            )
        ]
    found = [Finding(name="Docker", level="good", detail=docker.version)]
    if here.kind != "cpu" and not docker.nvidia_runtime:
        found.append(
            Finding(
                name="NVIDIA container toolkit",
                level="missing",
                detail="containers cannot reach the GPU",
                remedy="sudo apt-get install nvidia-container-toolkit && sudo nvidia-ctk runtime configure "
                "--runtime=docker && sudo systemctl restart docker",
            )
        )
    return found


def _bandwidth(here: Machine) -> list[BandwidthFigure]:
    """At the size of the course model's weights, and of memory that no cache holds."""
    from labs_helpers.machine import bandwidth
    from labs_helpers.model.architecture import SPEC

    weights = SPEC.parameters_read_per_token * 2
    sizes: dict[str, tuple[int | None, Literal["cpu", "auto"]]] = {
        "the course model's weights, bf16, on the CPU": (weights, "cpu"),
        "main memory, from the CPU": (None, "cpu"),
    }
    if here.kind != "cpu":
        sizes["GPU memory"] = (None, "auto")
    figures = []
    for over, (size, device) in sizes.items():
        try:
            found = bandwidth(here, size, device=device)
        except LabsError as error:
            figures.append(BandwidthFigure(over=over, gb_per_s=None, source="unknown", detail=str(error)))
            continue
        figures.append(
            BandwidthFigure(
                over=over,
                gb_per_s=round(found.gb_per_s, 1),
                source=found.source,
                working_set_bytes=found.working_set_bytes,
                detail=str(found),
            )
        )
    return figures


def render(found: Diagnosis, console: Console | None = None) -> None:
    """Print a diagnosis for people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    marks = {"good": "[green]✓[/]", "missing": "[yellow]–[/]", "blocking": "[red]✗[/]"}
    console.print(escape(found.card), highlight=False)
    for figure in found.bandwidth:
        console.print(f"bandwidth  {escape(figure.over)}: {escape(figure.detail)}", highlight=False)
    facts = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for finding in found.findings:
        remedy = f"\n[bold]→[/] {escape(finding.remedy)}" if finding.remedy else ""
        facts.add_row(marks[finding.level], finding.name, escape(finding.detail) + remedy)
    console.print()
    console.print(facts)
    engines = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for column in ("", "engine", "version", "why not, and what to do"):
        engines.add_column(column)
    for row in found.engines:
        mark = marks["good" if row.status == "available" else "missing"]
        remedy = f"\n[bold]→[/] {escape(row.remedy)}" if row.remedy else ""
        engines.add_row(mark, row.engine, row.version, escape(row.reason) + remedy)
    console.print()
    console.print(engines)
    console.print()
    if found.ready:
        console.print(f"[green]Ready:[/] ./labs run {LAB}")
    else:
        names = ", ".join(finding.name for finding in found.obstacles)
        console.print(f"[red]Not ready for lab {LAB}:[/] {escape(names)}")
