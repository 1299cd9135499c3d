"""Figures are believed only as far as the grader saw the engines itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labs_helpers import syllabus
from labs_helpers.grading import rubric
from labs_helpers.grading.measurements import Claim, accept, examine
from labs_helpers.grading.rubric import Plausibility
from labs_helpers.grading.witness import Reading, Seen, Sighting
from labs_helpers.results import LabResult, Load, Measurement
from labs_helpers.syllabus.requirements import LOOP

T0 = 1_790_000_000.0
LIMITS = Plausibility()
LABS = syllabus.built()


def seen(rate: float = 100.0, seconds: int = 10, started: float = T0, listening: float = T0 + 2) -> dict[str, Seen]:
    readings = [Reading(listening + i / 5, 50.0 * i, rate * i / 5) for i in range(seconds * 5 + 1)]
    return {"vllm": Seen("vllm", (Sighting("vllm", 1, started, listening, listening + seconds, False, readings),))}


def measured(metric: str, value: float, engine: str = "vllm") -> Measurement:
    return Measurement(metric=metric, value=value, engine=engine, engine_version="1", machine="m", n=1,
                       precision="fp32", load=Load(concurrency=1))  # fmt: skip


def doubts(*rows: Measurement, evidence: Any = None, roof: float | None = None) -> list[str]:
    result = LabResult(lab="3.3.1", measurements=list(rows))
    evidence = seen() if evidence is None else evidence
    return list(examine(result, evidence, LIMITS, lambda engine, precision: roof, 60.0).values())


@pytest.mark.parametrize(
    ("metric", "honest", "forged", "why"),
    [
        ("output_throughput", 120.0, 1200.0, "never grew faster than 100 tok/s"),
        ("decode_throughput", 110.0, 1100.0, "never grew faster"),
        ("prefill_throughput", 400.0, 90_000.0, "never grew faster"),
        ("completion_tokens", 990.0, 2000.0, "the engine itself counted 1000"),
        ("startup_time", 2.1, 0.01, "it took 2.0 s"),
        ("ttft", 80.0, 90_000.0, "longer than the whole run"),
    ],
)
def test_an_honest_figure_is_believed_and_a_forged_one_is_not(
    metric: str, honest: float, forged: float, why: str
) -> None:
    assert doubts(measured(metric, honest)) == []
    (found,) = doubts(measured(metric, forged))
    assert why in found


def test_an_engine_that_never_ran_has_no_figures() -> None:
    (found,) = doubts(measured("ttft", 10, engine="sglang"))
    assert "no engine 'sglang' ran" in found


def test_an_engine_that_ran_unread_is_not_believed() -> None:
    evidence = {"vllm": Seen("vllm", (Sighting("vllm", 1, T0, T0 + 1),))}
    (found,) = doubts(measured("ttft", 10), evidence=evidence)
    assert "could not be read" in found


def test_an_engine_without_counters_is_held_to_the_roofline() -> None:
    evidence = {"vllm": Seen("vllm", (Sighting("vllm", 1, T0, T0 + 1, uncounted=True),))}
    assert doubts(measured("decode_throughput", 100), evidence=evidence, roof=90) == []
    (found,) = doubts(measured("decode_throughput", 1000), evidence=evidence, roof=90)
    assert "above the roofline of 90 tok/s" in found


def test_tokens_are_added_up_over_all_runs_of_an_engine() -> None:
    assert len(doubts(*[measured("completion_tokens", 400) for _ in range(4)])) == 4
    assert doubts(*[measured("completion_tokens", 240) for _ in range(4)]) == []


def test_the_courses_own_loop_needs_no_server_and_earns_no_points() -> None:
    assert doubts(measured("speedup", 2.5, engine=LOOP)) == []
    rules = [rule for entry in LABS for rule in rubric.load(entry).rubric.measurements]
    assert [rule for rule in rules if rule.args.get("engine") == LOOP] == []


def test_references_are_not_judged() -> None:
    row = Measurement(metric="decode_throughput", value=9e9, engine="vllm", source="reference", cited_from="a blog")
    assert doubts(row) == []


def claim(**changes: Any) -> Claim:
    moment = datetime.fromtimestamp(T0 + 5, UTC)
    result = LabResult(lab=changes.pop("lab", "3.3.1"), started_at=changes.pop("began", moment))
    result.finished_at = changes.pop("ended", moment + timedelta(seconds=1))
    text = changes.pop("text", result.model_dump_json())
    values = {"text": text, "written_at": T0 + 6, "last_cell_end": T0 + 6.1, "started_at": T0, "finished_at": T0 + 8}
    return Claim(**{**values, **changes})


def test_the_result_of_this_run_is_accepted() -> None:
    assert accept("3.3.1", claim())[1] == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"text": None}, "left no result"),
        ({"text": "{}"}, "not a result file"),
        ({"text": "[" * 100_000}, "not a result file"),
        ({"lab": "3.3.2"}, "is of lab 3.3.2"),
        ({"written_at": T0 + 7}, "written after the notebook had ended"),
        ({"written_at": None}, "written after"),
        ({"ended": None}, "never finished"),
        ({"began": datetime.fromtimestamp(T0 - 900, UTC)}, "time outside this run"),
        ({"ended": datetime.fromtimestamp(T0 + 900, UTC)}, "time outside this run"),
    ],
)
def test_any_other_result_is_not(changed: dict[str, Any], why: str) -> None:
    result, found = accept("3.3.1", claim(**changed))
    assert result is None and why in found
