"""Curves: how a metric changes with the load, and what throughput costs in latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure
from labs_helpers.results import METRICS, Measurement

Variable = Literal["concurrency", "request_rate", "prompt_tokens", "output_tokens"]
LINE_STYLES = ("-", "--", ":", "-.")
"""Of one engine, whose colour is fixed: its precisions or workloads."""
WIDE = 30
"""From this ratio of the largest to the smallest latency on, the axis is logarithmic."""
VARIABLES: dict[str, str] = {
    "concurrency": "Concurrency (streams in flight)",
    "request_rate": "Request rate (requests/s)",
    "prompt_tokens": "Prompt length (tokens)",
    "output_tokens": "Output length (tokens)",
}


def lines(
    measurements: Iterable[Measurement],
    metric: str,
    x: Variable = "concurrency",
    title: str = "",
    *,
    by_workload: bool = False,
) -> LabFigure:
    """One line per engine and precision over a variable of the load, with spread and sample counts.

    Over lengths, lines are told apart by concurrency, or by workload with `by_workload`. Published figures are not
    drawn here: they are single points of other machines. `bars` shows them apart.

    Raises:
        LabsError: an unknown variable, or none of this metric was measured at a known value of it.
    """
    if x not in VARIABLES:
        raise LabsError(f"there is no load variable {x!r}", "variables: " + ", ".join(VARIABLES))
    taken = [m for m in style.measured(measurements, metric) if getattr(m.load, x) is not None]
    if not taken:
        raise LabsError(
            f"nothing to draw: no {METRICS[metric].title} was measured at a known {x}",
            f"record it with a load that states {x}",
        )
    figure = style.new_figure(4.2)
    ax = figure.subplots()
    series = _series(taken, x, by_workload)
    for index, (name, points) in enumerate(series):
        at = [float(getattr(m.load, x)) for m in points]
        _line(ax, index, name, points, at, [m.value for m in points])
    drawn = [m for _, points in series for m in points]
    _ticks(ax, sorted({float(getattr(m.load, x)) for m in drawn}))
    ax.set_ylim(bottom=0)
    ax.set_xlabel(VARIABLES[x], fontsize=9, color=style.INK)
    ax.set_ylabel(style.axis_label(metric), fontsize=9, color=style.INK)
    ax.yaxis.set_major_formatter(style.THOUSANDS)
    style.clean_axes(ax, grid="y")
    style.title(ax, title or f"{METRICS[metric].title} by {VARIABLES[x].split(' (')[0].lower()}")
    _legend(ax)
    style.caption(figure, drawn, _spread_note(drawn))
    return figure


def latency_throughput(
    measurements: Iterable[Measurement],
    latency: str = "ttft",
    throughput: str = "output_throughput",
    *,
    precision: str | None = None,
) -> LabFigure:
    """Latency against throughput, one line per engine, each point labelled with its load: what more work costs.

    Args:
        measurements: any records; runs that measured both metrics are drawn.
        latency: a latency metric, e.g. 'ttft' or 'tpot'.
        throughput: a throughput metric.
        precision: keep to one precision.

    Raises:
        LabsError: no load has both metrics measured.
    """
    rows = [m for m in measurements if precision is None or m.precision == precision]
    slow = {_run(m): m for m in style.measured(rows, latency)}
    taken = [m for m in style.measured(rows, throughput) if _run(m) in slow]
    if not taken:
        raise LabsError(
            f"nothing to draw: no run measured both {latency} and {throughput}",
            "record both from the same benchmark run",
        )
    figure = style.new_figure(4.4)
    ax = figure.subplots()
    variable = "concurrency" if any(m.load.concurrency is not None for m in taken) else "request_rate"
    series = _series(taken, variable)
    for index, (name, points) in enumerate(series):
        pairs = [slow[_run(m)] for m in points]
        _line(ax, index, name, pairs, [m.value for m in points], [m.value for m in pairs])
        for m, pair in zip(points, pairs, strict=True):
            text = f"c={m.load.concurrency}" if m.load.concurrency is not None else f"{m.load.request_rate:g}/s"
            ax.annotate(
                text,
                (m.value, pair.value),
                (6, -10),
                textcoords="offset points",
                fontsize=7.5,
                color=style.engine_colour(m.engine),
            )
    ax.margins(x=0.1)
    ax.set_xlim(left=0)
    latencies = [slow[_run(m)].value for _, points in series for m in points]
    wide = min(latencies) > 0 and max(latencies) / min(latencies) > WIDE
    ax.set_yscale("log") if wide else ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(style.THOUSANDS)
    ax.set_xlabel(style.axis_label(throughput), fontsize=9, color=style.INK)
    ax.set_ylabel(style.axis_label(latency) + (", log scale" if wide else ""), fontsize=9, color=style.INK)
    ax.yaxis.set_major_formatter(style.THOUSANDS)
    style.clean_axes(ax, grid="y")
    style.title(ax, "What throughput costs in latency (better: down and to the right)")
    _legend(ax)
    drawn = [m for _, points in series for m in points]
    style.caption(figure, drawn, _spread_note([slow[_run(m)] for m in drawn]))
    return figure


def _run(m: Measurement) -> tuple[str, str, str, str]:
    """What two metrics of one benchmark run have in common."""
    return m.engine, m.precision, m.model, m.load.label()


def _series(taken: Sequence[Measurement], x: str, by_workload: bool = False) -> list[tuple[str, list[Measurement]]]:
    """Curves: measurements that differ in `x` and in nothing else that matters, sorted by it.

    A benchmark records every metric under every load, so an engine with a curve also has stray single points (the
    output rate of a prefill run, say). They are left out; an engine that has only one point keeps it.
    """

    def engine(m: Measurement) -> tuple[str, str, str]:
        return m.engine, m.precision, m.model

    def fixed(m: Measurement) -> str:
        return m.load.workload if by_workload else str(m.load.concurrency or 1)

    by_workload = by_workload or x in ("concurrency", "request_rate")

    series: dict[tuple[tuple[str, str, str], str], list[Measurement]] = {}
    for m in sorted(taken, key=lambda m: (engine(m), fixed(m), getattr(m.load, x) or 0)):
        series.setdefault((engine(m), fixed(m)), []).append(m)
    curved = {who for (who, _), points in series.items() if len(points) > 1}
    kept = {key: points for key, points in series.items() if len(points) > 1 or key[0] not in curved}
    several = len({what for _, what in kept}) > 1
    label = "{}" if by_workload else "c={}"
    return [
        (style.series_name(points[0], taken) + (f", {label.format(style.plain(what))}" if several else ""), points)
        for (_, what), points in kept.items()
    ]


def _line(
    ax: Axes, index: int, name: str, evidence: Sequence[Measurement], x: Sequence[float], y: Sequence[float]
) -> None:
    """One engine's line; `evidence` are the measurements on the vertical axis, whose n and spread are shown."""
    low, high = zip(*(style.error_bar(m) for m in evidence), strict=True)
    counts = [m.n for m in evidence]
    n = f"n={counts[0]}" if len(set(counts)) == 1 else "n=" + ", ".join(map(str, counts))
    flags = sorted({flag for m in evidence for flag in m.flags})
    colour = style.engine_colour(evidence[0].engine)
    lines = (c.lines[0] for c in ax.containers if isinstance(c, ErrorbarContainer))
    same_engine = sum(line.get_color() == colour for line in lines)
    ax.errorbar(
        x,
        y,
        yerr=[low, high],
        color=colour,
        linewidth=1.8,
        linestyle=LINE_STYLES[same_engine % len(LINE_STYLES)],
        capsize=3,
        elinewidth=1,
        marker=style.MARKERS[index % len(style.MARKERS)],
        markersize=6,
        label=f"{name} ({n})" + (f"  ! {', '.join(flags)}" if flags else ""),
    )


def _ticks(ax: Axes, values: Sequence[float]) -> None:
    """Ticks where something was measured; a logarithmic axis where the values span more than a factor of eight."""
    if values[0] > 0 and values[-1] / values[0] >= 8:
        ax.set_xscale("log", base=2)
    apart = [value for value, last in zip(values, [0.0, *values], strict=False) if value > 1.1 * last]
    ax.set_xticks(apart, [f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in apart])
    ax.minorticks_off()


def _legend(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)


def _spread_note(rows: Sequence[Measurement]) -> str:
    kinds = sorted({style.SPREAD_NAMES[m.spread.kind] for m in rows if m.spread})
    return (
        f"bars: {', '.join(kinds)}; n: samples per point, left to right"
        if kinds
        else "n: samples per point, left to right; no spread was recorded"
    )
