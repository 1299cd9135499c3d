"""The roofline as the grader measures it: what no honest decode figure of this machine can exceed."""

from __future__ import annotations

import functools

from labs_helpers.errors import LabsError
from labs_helpers.grading.measurements import Roof
from labs_helpers.grading.rubric import GradedLab


def of(lab: GradedLab) -> Roof:
    """Tokens per second for an engine and precision of this lab; None for a model whose bytes are not known."""
    engines = {engine.name: engine for engine in lab.witnesses}

    def roof(name: str, precision: str) -> float | None:
        engine = engines.get(name)
        if engine is None or precision not in engine.precisions:
            return None
        try:
            bytes_per_token = engine.model(precision).bytes_per_token
        except (LabsError, OSError):
            return None
        return _gb_per_s(bytes_per_token) * 1e9 / bytes_per_token if bytes_per_token else None

    return roof


@functools.lru_cache(maxsize=32)
def _gb_per_s(working_set: int) -> float:
    from labs_helpers import machine

    return machine.bandwidth(machine.detect(), working_set, device="cpu").gb_per_s
