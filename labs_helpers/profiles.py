"""Profiles: which models a lab serves and how its engines run, one dial for the whole course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


@dataclass(frozen=True)
class Profile:
    """One row of the profile table."""

    name: str
    models: str
    runner: str
    """'process' (an engine runs in its own virtual environment) or 'container'."""
    precision: str
    """The precision all engines of a comparison are held to."""


PROFILES = {
    "cpu": Profile("cpu", "the course model, 13M parameters", "process", "fp32"),
    "spark": Profile("spark", "Qwen3-8B, Llama-3.1-8B", "container", "fp8"),
    "cuda": Profile("cuda", "Qwen3-8B, Llama-3.1-8B", "container", "fp8"),
}


@dataclass(frozen=True)
class Choice:
    """A chosen profile and the sentence that says why."""

    profile: Profile
    why: str


def choose(name: str, machine: Machine) -> Choice:
    """The profile called `name`; 'auto' decides by the machine.

    Raises:
        LabsError: no such profile, or one that this release or this machine cannot run.
    """
    if name == "auto":
        why = (
            "no NVIDIA GPU here"
            if machine.kind == "cpu"
            else (f"{machine.gpu_name} found, but this release has no container engines yet: the CPU engines run")
        )
        return Choice(PROFILES["cpu"], why)
    if name not in PROFILES:
        raise LabsError(f"there is no profile {name!r}", "profiles: auto, " + ", ".join(PROFILES))
    if PROFILES[name].runner == "container":
        raise LabsError(
            f"profile {name!r} needs the container engines, which come in a later release",
            "use profile='cpu': the same labs on the course model",
        )
    return Choice(PROFILES[name], "asked for")
