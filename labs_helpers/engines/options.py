"""Options of engines: named, typed, and refused with the list of known ones when they are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labs_helpers.errors import LabsError

CONTEXT = 4096
"""Positions of the course model, and what every engine serves unless told otherwise."""


def default_threads() -> int:
    """Threads an engine computes with: every core but one, at least one.

    The same for all engines, so that they can be compared; the core left over is for the engine's HTTP front and the
    client, which would otherwise steal time from one compute thread while the others wait for it at a barrier.
    """
    from labs_helpers.machine.detection import usable_cores

    return max(1, usable_cores() - 1)


class Options(BaseModel):
    """Options that every engine takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    threads: int = Field(default_factory=default_threads, ge=1, description="compute threads")
    max_model_len: int = Field(CONTEXT, ge=16, description="positions one request may use")


Kind = TypeVar("Kind", bound=Options)


def read(kind: type[Kind], engine: str, given: Mapping[str, Any]) -> Kind:
    """`given` as typed options.

    Raises:
        LabsError: an option this engine does not have, or a value it cannot take.
    """
    known = ", ".join(kind.model_fields)
    if unknown := [name for name in given if name not in kind.model_fields]:
        from difflib import get_close_matches

        close = get_close_matches(unknown[0], kind.model_fields, n=1)
        raise LabsError(
            f"{engine} has no option {unknown[0]!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            f"options of {engine}: {known}",
        )
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise LabsError(
            f"{engine} cannot take {name}={given[name]!r}: {first['msg']}",
            f"{name}: {kind.model_fields[name].description or 'see labs_helpers.engines'}",
        ) from None


def cpu_list(threads: int) -> str:
    """The first `threads` cores this process may use, as OpenMP and vLLM write them: '0,1'."""
    cores = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, cores[:threads]))
