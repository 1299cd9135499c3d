"""Bars: one value per engine, with sample count and spread beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from textwrap import fill

from matplotlib.axes import Axes

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain
from labs_helpers.results import METRICS, Measurement, Spread

ROW_INCHES = 0.36


def bars(measurements: Iterable[Measurement], metric: str, title: str = "") -> LabFigure:
    """One horizontal bar per measurement, grouped by load where loads differ; published figures in a panel below.

    Raises:
        LabsError: none of this metric was measured.
    """
    rows = list(measurements)
    taken, cited = style.measured(rows, metric), style.published(rows, metric)
    groups = _by_load(taken)
    lines = len(taken) + (len(groups) if len(groups) > 1 else 0)
    heights = [lines * ROW_INCHES + 0.8] + ([len(cited) * ROW_INCHES + 0.8] if cited else [])
    figure = style.new_figure(sum(heights) + 0.35 + 0.13 * len({m.cited_from for m in cited}))
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw(axes[0], groups, taken, metric)
    style.title(axes[0], title or METRICS[metric].title)
    if cited:
        _draw_published(axes[1], cited, metric, _sources(cited))
        style.title(axes[1], "Published by others, other machines and models: not measured here")
    style.caption(figure, taken, *_footnotes(_sources(cited)))
    return figure


def references(measurements: Iterable[Measurement]) -> LabFigure:
    """Published figures only, a panel for each metric, with their sources.

    Raises:
        LabsError: none of the measurements is a reference.
    """
    cited = [m for m in measurements if m.source == "reference" and m.metric not in ("bandwidth", "roofline")]
    metrics = list(dict.fromkeys(m.metric for m in cited))
    if not metrics:
        raise LabsError("nothing to draw: no published figures were recorded", "lab.record(references.spark())")
    panels = [[m for m in cited if m.metric == metric] for metric in metrics]
    sources = _sources(cited)
    heights = [len(panel) * ROW_INCHES + 0.8 for panel in panels]
    figure = style.new_figure(sum(heights) + 0.35 + 0.13 * len(sources))
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, metric, panel in zip(axes, metrics, panels, strict=True):
        _draw_published(ax, panel, metric, sources)
        style.title(ax, f"{METRICS[metric].title}: published by others, not measured here")
    style.footnote(figure, *_footnotes(sources))
    return figure


def startup_and_memory(measurements: Iterable[Measurement]) -> LabFigure:
    """What an engine costs before its first request: seconds until it answers, and memory, side by side.

    Raises:
        LabsError: neither, or only one of the two, was measured.
    """
    rows = list(measurements)
    taken = {metric: _pooled(style.measured(rows, metric)) for metric in ("startup_time", "memory")}
    figure = style.new_figure(max(map(len, taken.values())) * ROW_INCHES + 1.3)
    panels = list(figure.subplots(1, 2))
    for ax, (metric, found) in zip(panels, taken.items(), strict=True):
        ordered = sorted(found, key=lambda m: (m.engine, m.precision))
        _draw(ax, [("", ordered)], found, metric, compact=True)
        style.title(ax, METRICS[metric].title)
        ax.set_xlabel(f"{METRICS[metric].unit}, {METRICS[metric].better} is better", fontsize=9, color=style.INK)
    left, right = ([label.get_text() for label in ax.get_yticklabels()] for ax in panels)
    if left == right:  # the same rows on both sides are named once
        panels[1].set_yticklabels([])
    style.caption(figure, [*taken["startup_time"], *taken["memory"]])
    return figure


def _pooled(rows: Sequence[Measurement]) -> list[Measurement]:
    """Repeated starts of the same engine as one measurement: the median, with their range."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in rows:
        groups.setdefault((m.engine, m.precision, m.model), []).append(m)
    return [
        group[0]
        if len(group) == 1
        else group[0].model_copy(
            update={
                "value": median(m.value for m in group),
                "n": sum(m.n for m in group),
                "spread": Spread(low=min(m.value for m in group), high=max(m.value for m in group), kind="minmax"),
            }
        )
        for group in groups.values()
    ]


def _by_load(rows: Sequence[Measurement]) -> list[tuple[str, list[Measurement]]]:
    """Groups of equal load in order of load, engines in a fixed order within each."""

    def key(m: Measurement) -> tuple[str, float, float, float]:
        load = m.load
        return load.workload, load.concurrency or 0, load.request_rate or 0, load.prompt_tokens or 0

    def order(m: Measurement) -> tuple[object, ...]:
        return (*key(m), m.engine, m.precision)

    groups = [list(group) for _, group in groupby(sorted(rows, key=order), key=key)]
    return [(group[0].load.label(), group) for group in groups]


def _draw(
    ax: Axes,
    groups: Sequence[tuple[str, list[Measurement]]],
    among: Sequence[Measurement],
    metric: str,
    compact: bool = False,
) -> None:
    top = max(m.value + style.error_bar(m)[1] for m in among)
    ticks: list[tuple[float, str, str]] = []
    y = 0
    for label, group in groups:
        if len(groups) > 1:
            ticks.append((y, plain(label), "bold"))
            y += 1
        for m in group:
            low, high = style.error_bar(m)
            ax.barh(y, m.value, height=0.62, color=style.engine_colour(m.engine))
            if low or high:
                ax.errorbar(m.value, y, xerr=[[low], [high]], fmt="none", ecolor=style.INK, capsize=3, linewidth=1)
            details = f"n={m.n}" if compact else style.evidence(m)
            flags = f"  ! {', '.join(m.flags)}" if m.flags else ""
            ax.annotate(
                plain(f"{style.number(m.value)}  ({details}){flags}"),
                (m.value + high, y),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=style.WARNING if m.flags else style.INK,
            )
            ticks.append((y, fill(style.series_name(m, among), style.LABEL_CHARACTERS), "normal"))
            y += 1
    ax.set_yticks([at for at, _, _ in ticks], [text for _, text, _ in ticks])
    for tick, (_, _, weight) in zip(ax.get_yticklabels(), ticks, strict=True):
        tick.set_fontweight(weight)
    flagged = any(m.flags for _, group in groups for m in group)
    style.finish_bars(ax, y, top, metric, room=1.75 if compact or flagged else 1.5)


def _draw_published(ax: Axes, cited: Sequence[Measurement], metric: str, sources: Sequence[str]) -> None:
    """Hollow bars on an axis of their own, each with the number of its source."""
    for y, m in enumerate(cited):
        mark = f"[{sources.index(m.cited_from or '') + 1}]"
        ax.barh(
            y,
            m.value,
            height=0.55,
            facecolor="white",
            edgecolor=style.engine_colour(m.engine),
            linestyle="--",
            linewidth=1.3,
        )
        batch = f", batch {m.load.concurrency}" if (m.load.concurrency or 1) > 1 else ""
        ax.annotate(
            plain(f"{style.number(m.value)}  {m.machine}{batch} {mark}"),
            (m.value, y),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style.MUTED,
        )
    ax.set_yticks(range(len(cited)), [plain(f"{style.engine_title(m.engine)} {m.model} {m.precision}") for m in cited])
    style.finish_bars(ax, len(cited), max(m.value for m in cited), metric)
    ax.tick_params(axis="y", labelsize=8)


def _sources(cited: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(m.cited_from or "" for m in cited))


def _footnotes(sources: Sequence[str]) -> list[str]:
    return [f"[{mark}] {source}" for mark, source in enumerate(sources, start=1)]
