"""From measurements to a decision: one table of engines by metric, and a ranking for a use case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from labs_helpers.results import METRICS, Measurement

Table = dict[str, dict[str, float]]


def decision_table(measurements: Iterable[Measurement], at_concurrency: int) -> Table:
    """`{engine: {metric: value}}` for ranking.

    Of a metric that was taken under several loads, latencies and throughputs count at `at_concurrency`, prefill at the
    longest prompt, and decode at one stream. What no engine did (bandwidth, rooflines, token counts) is left out.
    """
    rows = [m for m in measurements if METRICS[m.metric].better != "neither" and m.metric != "bandwidth"]
    table: Table = {}
    for engine in dict.fromkeys(m.engine for m in rows):
        own = [m for m in rows if m.engine == engine]
        table[engine] = {
            metric: chosen.value
            for metric in dict.fromkeys(m.metric for m in own)
            if (chosen := _representative(metric, [m for m in own if m.metric == metric], at_concurrency))
        }
    return table


def _representative(metric: str, rows: list[Measurement], at_concurrency: int) -> Measurement | None:
    if metric == "prefill_throughput":
        return max(rows, key=lambda m: m.load.prompt_tokens or 0)
    if metric == "decode_throughput":
        single = [m for m in rows if m.load.concurrency == 1]
        return max(single, key=lambda m: m.load.output_tokens or 0) if single else None
    at_level = [m for m in rows if m.load.concurrency in (at_concurrency, None)]
    return max(at_level, key=lambda m: m.load.output_tokens or 0) if at_level else None


def rank(
    engines: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    lower_is_better: Collection[str] | None = None,
) -> list[tuple[str, float]]:
    """Engines with their weighted score (0 to 1, relative to the best of each metric), the best first.

    An engine for which a metric was not measured scores 0 there. Without `lower_is_better` the direction is the
    metric's own (`results.METRICS`).
    """
    if lower_is_better is None:
        lower_is_better = {name for name, metric in METRICS.items() if metric.better == "lower"}
    totals = dict.fromkeys(engines, 0.0)
    for metric, weight in weights.items():
        measured = {name: values[metric] for name, values in engines.items() if metric in values}
        lower = metric in lower_is_better
        best = (min if lower else max)(measured.values(), default=0.0)
        for name, value in measured.items():
            totals[name] += weight * (best / value if lower else value / best)
    whole = sum(weights.values())
    return sorted(((name, total / whole) for name, total in totals.items()), key=lambda row: (-row[1], row[0]))
