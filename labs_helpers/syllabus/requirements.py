"""What a lab must have measured before it may finish. Each function makes one requirement."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from labs_helpers.results import LabResult, Measurement, Requirement

Rule = Callable[[LabResult], Requirement]


def engines_measured(metric: str, at_least: int) -> Rule:
    """At least so many engines have a measured (not a reference) figure of this metric."""

    def rule(result: LabResult) -> Requirement:
        engines = _engines(result.select(metric, source="measured"))
        return Requirement(
            name=f"{metric} of {at_least} engines",
            met=len(engines) >= at_least,
            detail=", ".join(engines) or "none measured",
        )

    return rule


def concurrencies_measured(metric: str, levels: Iterable[int], at_least: int) -> Rule:
    """At least so many engines have this metric at every one of these concurrency levels."""
    wanted = sorted(levels)

    def rule(result: LabResult) -> Requirement:
        rows = result.select(metric, source="measured")
        complete = [
            engine
            for engine in _engines(rows)
            if set(wanted) <= {m.load.concurrency for m in rows if m.engine == engine}
        ]
        return Requirement(
            name=f"{metric} at concurrency {', '.join(map(str, wanted))} of {at_least} engines",
            met=len(complete) >= at_least,
            detail=", ".join(complete) or "none complete",
        )

    return rule


def witnessed(metric: str, within: float, at_least: int) -> Rule:
    """The engines' own counters agree with our figures of this metric; so many engines have such a counter."""

    def rule(result: LabResult) -> Requirement:
        rows = [m for m in result.select(metric, source="measured") if m.witness_error is not None]
        worst = max((m.witness_error or 0.0 for m in rows), default=0.0)
        engines = _engines(rows)
        return Requirement(
            name=f"{metric} within {within:.0%} of the engines' own counters",
            met=len(engines) >= at_least and worst <= within,
            detail=f"largest difference {worst:.2%} over {', '.join(engines)}" if rows else "no counter was read",
        )

    return rule


def none_failed() -> Rule:
    """No request of any load failed: what the survivors of a half-failed load show is not the engine's speed."""

    def rule(result: LabResult) -> Requirement:
        rows = [m for m in result.measurements if any("failed" in flag for flag in m.flags)]
        failed = sorted({f"{m.engine} {m.load.label()}: {', '.join(m.flags)}" for m in rows})
        return Requirement(name="no request failed", met=not failed, detail="; ".join(failed[:3]) or "none did")

    return rule


def _engines(rows: Iterable[Measurement]) -> list[str]:
    return sorted({m.engine for m in rows})
