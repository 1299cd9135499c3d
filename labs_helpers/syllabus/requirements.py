"""What a lab must have measured before it may finish. Each function makes one requirement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

from labs_helpers.results import LabResult, Measurement, Requirement

Rule = Callable[[LabResult], Requirement]

LOOP = "labs speculation"
"""The course's own decode loop, as the engine of its figures."""


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


def prediction_holds(within_pages: float, at_least: int) -> Rule:
    """Cached tokens were predicted, and no request was further off than so many pages; so many engines took part."""

    def rule(result: LabResult) -> Requirement:
        rows = result.select("cache_prediction_error", source="measured")
        engines = _engines(rows)
        worst = max((m.value for m in rows), default=0.0)
        return Requirement(
            name=f"cached tokens as predicted, within {within_pages:g} page",
            met=len(engines) >= at_least and worst <= within_pages,
            detail=f"at most {worst:g} pages off over {', '.join(engines)}" if rows else "nothing was predicted",
        )

    return rule


def ratio_at_most(metric: str, engine: str, *, of: str, to: str, most: float, prompt_tokens: float = 0) -> Rule:
    """This metric under workload `of` is at most `most` times that under workload `to`, at equal prompt lengths.

    Only loads of at least `prompt_tokens` tokens count, one stream at a time; every such length must hold.
    """

    def rule(result: LabResult) -> Requirement:
        rows = [
            m
            for m in result.select(metric, engine=engine, source="measured")
            if m.load.concurrency == 1 and (m.load.prompt_tokens or 0) >= prompt_tokens
        ]
        by_length = {m.load.prompt_tokens: m.value for m in rows if m.load.workload == to}
        ratios = [
            m.value / by_length[m.load.prompt_tokens]
            for m in rows
            if m.load.workload == of and by_length.get(m.load.prompt_tokens)
        ]
        return Requirement(
            name=f"{metric} of {engine}: {of} at most {most:.2f} of {to}",
            met=bool(ratios) and max(ratios) <= most,
            detail=f"{max(ratios):.2f} at worst" if ratios else "not measured",
        )

    return rule


def all_valid(engines: Iterable[str], workload: str, at_least: int) -> Rule:
    """Every one of at least so many outputs under this workload's constraint was valid, on each of the engines."""
    wanted = list(engines)

    def rule(result: LabResult) -> Requirement:
        rows = [m for m in result.select("valid_rate", source="measured") if m.load.workload == workload]
        kept = [m.engine for m in rows if m.value == 1.0 and m.n >= at_least]
        return Requirement(
            name=f"{workload}: all of {at_least} outputs valid",
            met=set(wanted) <= set(kept),
            detail=", ".join(f"{m.engine} {m.value:.0%} of {m.n}" for m in rows) or "not measured",
        )

    return rule


def figures_within(
    metric: str,
    *,
    least: float | None = None,
    most: float | None = None,
    workload: str = "",
    concurrency: int | None = None,
    at_least: int = 1,
) -> Rule:
    """Every figure of this metric lies in the given range; so many engines have one.

    With `workload` or `concurrency`, only figures of such loads count.
    """

    def rule(result: LabResult) -> Requirement:
        rows = [
            m
            for m in result.select(metric, source="measured")
            if (not workload or m.load.workload == workload)
            and (concurrency is None or m.load.concurrency == concurrency)
        ]
        inside = [m for m in rows if (least is None or m.value >= least) and (most is None or m.value <= most)]
        bounds = [f"at least {least:g}"] if least is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        where = [workload] if workload else []
        where += [f"concurrency {concurrency}"] if concurrency is not None else []
        return Requirement(
            name=" ".join([f"{metric} {' and '.join(bounds)}".strip(), *([f"({', '.join(where)})"] if where else [])]),
            met=len(_engines(rows)) >= at_least and len(inside) == len(rows),
            detail=", ".join(f"{m.engine} {m.value:.3g}" for m in rows[:6]) or "not measured",
        )

    return rule


def methods_measured(
    metric: str, engine: str, methods: Iterable[str], concurrencies: Iterable[int] = (1,), workloads: Iterable[str] = ()
) -> Rule:
    """This engine has the metric with each of these ways to draft, at all these concurrencies, on all these texts."""
    wanted = list(product(methods, concurrencies, list(workloads) or [""]))

    def rule(result: LabResult) -> Requirement:
        rows = result.select(metric, engine=engine, source="measured")
        found = {(m.method, m.load.concurrency, w) for m in rows for w in (m.load.workload, "")}
        missing = [f"{method} at {streams} {text}".strip() for method, streams, text in wanted
                   if (method, streams, text) not in found]  # fmt: skip
        return Requirement(
            name=f"{metric} of {engine} with {', '.join(dict.fromkeys(method for method, _, _ in wanted))}",
            met=not missing,
            detail="missing: " + ", ".join(missing[:3]) if missing else f"all of {len(wanted)}",
        )

    return rule


def same_tokens(engine: str, methods: Iterable[str]) -> Rule:
    """Every output with these ways to draft was, token for token, what this engine writes without."""
    wanted = list(methods)

    def rule(result: LabResult) -> Requirement:
        rows = [m for m in result.select("token_agreement", engine=engine, source="measured") if m.method in wanted]
        trouble = [f"{m.method} {m.value:.2%} of n={m.n}" for m in rows if m.value != 1.0]
        trouble += [f"{method} not compared" for method in wanted if method not in {m.method for m in rows}]
        return Requirement(
            name=f"{engine} writes the same with {', '.join(wanted)} as without",
            met=not trouble,
            detail="; ".join(trouble) or f"all of {sum(m.n for m in rows)} outputs",
        )

    return rule


def acceptance_agrees(engine: str, method: str, within: float) -> Rule:
    """An engine's acceptance length is that of the course's own loop with the same draft on the same prompts.

    A draft that reads the wrong hidden states still drafts, and the output is still right; only this shows it.
    """

    def rule(result: LabResult) -> Requirement:
        rows = result.select("acceptance_length", method=method, source="measured")
        ours = {m.load.workload: m.value for m in rows if m.engine == LOOP}
        pairs = [(m.value, ours[m.load.workload]) for m in rows if m.engine == engine and m.load.workload in ours]
        worst = max(pairs, key=lambda pair: abs(pair[0] - pair[1]), default=None)
        return Requirement(
            name=f"acceptance length of {engine} with {method} within {within:g} of our own loop's",
            met=worst is not None and abs(worst[0] - worst[1]) <= within,
            detail=f"{worst[0]:.2f} against {worst[1]:.2f}" if worst else "not measured on the same prompts",
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
