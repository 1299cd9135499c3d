"""The engines of the course, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labs_helpers.engines.base import Engine
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.machine import Machine
    from labs_helpers.results import EngineStatus


def engines() -> tuple[Engine, ...]:
    """Every engine the course knows, also those that cannot run here."""
    from labs_helpers.engines.llamacpp import LlamaCpp
    from labs_helpers.engines.ollama import Ollama
    from labs_helpers.engines.sglang import SGLang
    from labs_helpers.engines.tensorrt_llm import TensorRTLLM
    from labs_helpers.engines.transformers_engine import Transformers
    from labs_helpers.engines.vllm import VLLM

    return Transformers(), LlamaCpp(), VLLM(), SGLang(), TensorRTLLM(), Ollama()


def get(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        LabsError: there is none; the message names the closest one and all others.
    """
    known = {engine.name: engine for engine in engines()}
    if name in known:
        return known[name]
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    raise LabsError(
        f"there is no engine {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        f"engines: {', '.join(known)}",
    )


def table(machine: Machine | None = None) -> list[EngineStatus]:
    """One row per engine: can it run here, and if not, why and what to do."""
    from labs_helpers.results import EngineStatus

    if machine is None:
        from labs_helpers.machine import detect

        machine = detect()
    rows = []
    for engine in engines():
        found = engine.availability(machine)
        rows.append(
            EngineStatus(
                engine=engine.name,
                status="available" if found.ok else "unavailable",
                version=engine.version() if found.ok else "",
                reason=found.reason,
                remedy=found.remedy,
            )
        )
    return rows
