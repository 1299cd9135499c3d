"""An environment of its own for every engine or library that needs one, built from exact pins and kept in the cache.

The pins lie in environment/engines/NAME: `requirements.txt`, and `no-deps.txt` for packages whose own metadata would
pull what must not come along; either may be absent. The transformers server runs in the course's own environment and
needs nothing.
"""

from __future__ import annotations

import functools
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from labs_helpers import venvs
from labs_helpers.engines.base import Availability
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT, cache_dir

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

PINS = ROOT / "environment" / "engines"
NEEDS_TORCH = {"llama.cpp": False, "vllm": True, "sglang": True, "medusa-llm": True}
"""What is installed as packages, and whether PyTorch comes first."""
LIBRARIES = ("medusa-llm",)
"""Those of them that serve nothing, and so are no engines: `engines/medusa_llm.py` calls it."""
SIZE = {
    "llama.cpp": "35 MB to download",
    "vllm": "0.8 GB to download, 2.5 GB on disk, 3 to 10 minutes",
    "sglang": "0.9 GB to download, 3.3 GB on disk, 3 to 10 minutes",
    "medusa-llm": "0.3 GB to download, 1 GB on disk, 1 to 3 minutes",
}
ARCHITECTURES = ("x86_64", "aarch64")
CPU_ONLY = ("sglang",)
"""Engines whose packages are for machines without a GPU: beside one they run in a container."""


def folder(name: str) -> Path:
    """Where the environment of an engine lies."""
    return cache_dir() / "engines" / name


def python(name: str) -> Path:
    """The interpreter of an engine's environment.

    Raises:
        LabsError: it is not installed.
    """
    if not installed(name):
        raise LabsError(f"{name} is not installed", f"./labs engines install {name}")
    return venvs.python(folder(name))


def can_install(name: str, machine: Machine) -> bool:
    """True for an engine that is made of packages which exist for this machine."""
    if name in CPU_ONLY and machine.gpu is not None:
        return False
    return name in NEEDS_TORCH and sys.platform == "linux" and machine.arch in ARCHITECTURES


def installed(name: str) -> bool:
    """True when nothing need be built: the environment is whole and made of today's pins, or none is needed.

    Raises:
        LabsError: no such engine.
    """
    _require_known(name)
    if name == "transformers":
        return True
    return name in NEEDS_TORCH and venvs.ready(folder(name), _key(name))


def install(name: str, report: venvs.Report) -> None:
    """Build an engine's environment, unless it is whole already. Safe to repeat and to interrupt.

    Raises:
        LabsError: no such engine, one that is not installed this way, or the build failed.
    """
    _require_known(name)
    if installed(name):
        return
    from labs_helpers import machine
    from labs_helpers.engines import registry

    here = machine.detect()
    if not can_install(name, here):
        if name in LIBRARIES:
            raise LabsError(f"{name} has no packages for {sys.platform} on {here.arch}", "use Linux (on Windows: WSL)")
        found = registry.get(name).availability(here)
        why = f": {found.reason}" if found.reason else ": it does not come as a package"
        raise LabsError(f"{name} cannot be installed here{why}", found.remedy)
    venvs.build(
        folder(name),
        _steps(name),
        expected=_key(name),
        title=f"Installing {name}",
        report=report,
        log=cache_dir() / "logs" / f"install-{name}.log",
    )


def uninstall(name: str) -> None:
    """Remove an engine's environment; nothing happens when there is none.

    Raises:
        LabsError: no such engine, or the folder could not be removed.
    """
    _require_known(name)
    if name == "transformers":
        raise LabsError(
            "the transformers engine is part of the course's own environment",
            "rm -r .venv removes that; ./labs builds it again",
        )
    _version_in.cache_clear()
    try:
        (folder(name) / venvs.STAMP).unlink(missing_ok=True)
        if folder(name).exists():
            shutil.rmtree(folder(name))
    except OSError as error:
        raise LabsError(
            f"cannot remove {error.filename or folder(name)}: {error.strerror}", "mend the permissions and repeat"
        ) from error


def availability(name: str, title: str, machine: Machine) -> Availability:
    """Whether an engine that is made of packages can run here now."""
    if not can_install(name, machine):
        return Availability(
            False,
            f"{title} has no packages for {sys.platform} on {machine.arch}",
            "use Linux on x86_64 or aarch64 (on Windows: WSL)",
        )
    if not installed(name):
        return Availability(False, "not installed", f"./labs engines install {name}   ({SIZE[name]})")
    return Availability(True)


def package_version(name: str, package: str) -> str:
    """The version of a package in an engine's environment, without importing it.

    Raises:
        LabsError: it is not installed.
    """
    return _version_in(python(name).parent.parent, name, package)


@functools.cache
def _version_in(environment: Path, name: str, package: str) -> str:
    sites = (environment / "lib").glob("python3*/site-packages")
    for found in distributions(name=package, path=[str(site) for site in sites]):
        return found.version
    raise LabsError(f"{package} is missing from {environment}", f"./labs engines install {name} --force")


def _pins(name: str) -> list[Path]:
    return [path for path in (PINS / name / "requirements.txt", PINS / name / "no-deps.txt") if path.exists()]


def _steps(name: str) -> list[venvs.Step]:
    """What is installed, in this order: PyTorch, what may bring its dependencies, what may not."""
    steps = [venvs.TORCH] if NEEDS_TORCH[name] else []
    title = f"pinned packages ({SIZE[name]})"
    for path in _pins(name):
        alone = ("--no-deps",) if path.name == "no-deps.txt" else ()
        steps.append(venvs.Step(title, (*alone, "-r", str(path))))
        title = "packages without their dependencies"
    return steps


def _key(name: str) -> str:
    return venvs.key(*_pins(name))


def _require_known(name: str) -> None:
    from labs_helpers.engines import registry

    if name not in LIBRARIES:
        registry.get(name)
