"""Scoring measurements: the result file is a claim, the observer's readings are the witness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from labs_helpers.errors import LabsError
from labs_helpers.grading.rubric import GradedLab, Plausibility
from labs_helpers.grading.witness import Evidence, Seen
from labs_helpers.results import LabResult, Measurement

CLOCK_SLACK_S = 2.0
WRITE_SLACK_S = 0.25
Roof = Callable[[str, str], float | None]
"""(engine, precision) -> tokens per second that one stream cannot exceed here, None where nothing is known."""


@dataclass(frozen=True)
class Claim:
    """What the run handed back, with the times the grader itself took."""

    text: str | None
    written_at: float | None
    last_cell_end: float
    started_at: float
    finished_at: float


@dataclass(frozen=True)
class MeasurementScore:
    """What one required measurement earned and why."""

    name: str
    points: float
    most: float
    reason: str


def score(
    lab: GradedLab, claim: Claim, evidence: Evidence, roof: Roof
) -> tuple[list[MeasurementScore], LabResult | None]:
    """Points for every required measurement, and the result with only the figures that were believed."""
    wanted = lab.rubric.measurements
    result, why = accept(lab.id, claim)
    if result is None:
        return [MeasurementScore(m.look(LabResult(lab=lab.id)).name, 0, m.points, why) for m in wanted], None
    doubts = examine(result, evidence, lab.rubric.plausibility, roof, claim.finished_at - claim.started_at)
    believed = result.model_copy(
        update={"measurements": [m for i, m in enumerate(result.measurements) if i not in doubts]}
    )
    scores = []
    for rule in wanted:
        bad = list(dict.fromkeys(why for i, why in doubts.items() if result.measurements[i].metric == rule.metric))
        found = rule.look(believed)
        if bad:
            scores.append(MeasurementScore(found.name, 0, rule.points, "not believed: " + "; ".join(bad[:3])))
        else:
            scores.append(MeasurementScore(found.name, rule.points if found.met else 0, rule.points, found.detail))
    return scores, believed


def accept(lab_id: str, claim: Claim) -> tuple[LabResult | None, str]:
    """The result file, if it can be this run's; else why it cannot."""
    if claim.text is None:
        return None, "the notebook left no result: lab.finish() was not reached, or did not write"
    try:
        result = LabResult.model_validate_json(claim.text)
    except (ValidationError, ValueError, RecursionError, LabsError):
        return None, "what the notebook left is not a result file of this course"
    if result.lab != lab_id:
        return None, f"the result file is of lab {result.lab[:20]}"
    if claim.written_at is None or claim.written_at > claim.last_cell_end + WRITE_SLACK_S:
        return None, "the result file was written after the notebook had ended"
    if result.finished_at is None:
        return None, "the result file was never finished"
    early, late = claim.started_at - CLOCK_SLACK_S, claim.last_cell_end + CLOCK_SLACK_S
    if not (early <= _stamp(result.started_at) <= late and early <= _stamp(result.finished_at) <= late):
        return None, "the result file carries a time outside this run: it was not made by it"
    return result, ""


def _stamp(moment: datetime) -> float:
    try:
        return moment.timestamp()
    except (OverflowError, ValueError, OSError):
        return math.inf


def examine(result: LabResult, evidence: Evidence, limits: Plausibility, roof: Roof, run_s: float) -> dict[int, str]:
    """Figures the grader does not believe: index of the measurement -> why. References are not judged."""
    doubts: dict[int, str] = {}
    for index, m in enumerate(result.measurements):
        if m.source == "measured" and m.engine in _ENGINELESS:
            continue
        if m.source == "measured" and (why := _doubt(m, evidence.get(m.engine), limits, roof, run_s)):
            doubts[index] = why
    for engine, seen in evidence.items():
        doubts |= _too_many_tokens(result, engine, seen, limits)
    return doubts


_ENGINELESS = frozenset({"memory", "labs speculation"})
"""What no server answers for: the machine's own bandwidth, and the course's decode loop, which runs in the student's
kernel. No rubric gives points for their figures alone."""


def _doubt(m: Measurement, seen: Seen | None, limits: Plausibility, roof: Roof, run_s: float) -> str:
    if seen is None or not seen.answered:
        return f"no engine {m.engine!r} ran while this notebook ran"
    if seen.unreadable:
        return f"the counters of {m.engine} could not be read during the run"
    if m.value < 0:
        return f"{m.metric} of {m.engine} is negative"
    if m.unit in ("s", "ms") and m.value / (1000 if m.unit == "ms" else 1) > run_s:
        return f"{m.metric} of {m.engine} is longer than the whole run"
    if m.metric == "startup_time":
        observed = seen.quickest_start()
        if observed is not None and m.value < observed / 2 - 0.5:
            return f"{m.engine} was claimed to start in {m.value:.2f} s; it took {observed:.1f} s"
    if m.metric == "decode_throughput":
        roof_tps = roof(m.engine, m.precision)
        if roof_tps and m.value > limits.roofline * roof_tps:
            return f"{m.value:.0f} tok/s of {m.engine} is above the roofline of {roof_tps:.0f} tok/s"
    rates = {
        "output_throughput": ("generation_tokens", limits.generation_rate),
        "decode_throughput": ("generation_tokens", limits.generation_rate),
        "prefill_throughput": ("prompt_tokens", limits.prompt_rate),
    }
    if m.metric in rates and seen.counted:
        counter, times = rates[m.metric]
        peak = seen.peak_rate(counter)
        if peak and m.value > times * peak:
            return (
                f"{m.metric} of {m.engine} was claimed as {m.value:.0f} tok/s; its own counter never grew "
                f"faster than {peak:.0f} tok/s"
            )
    return ""


def _too_many_tokens(result: LabResult, engine: str, seen: Seen, limits: Plausibility) -> dict[int, str]:
    """More tokens claimed than the engine counted, what came after the last reading allowed for."""
    rows = [
        i
        for i, m in enumerate(result.measurements)
        if m.metric == "completion_tokens" and m.engine == engine and m.source == "measured"
    ]
    claimed = sum(result.measurements[i].value for i in rows)
    counted = seen.total("generation_tokens")
    if not seen.counted or claimed <= counted * limits.tokens + seen.unread("generation_tokens"):
        return {}
    why = f"{claimed:.0f} tokens of {engine} were claimed; the engine itself counted {counted:.0f}"
    return dict.fromkeys(rows, why)
