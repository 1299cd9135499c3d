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
LABEL_CHARACTERS = 26


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


def decode_vs_roofline(measurements: Iterable[Measurement]) -> LabFigure:
    """Decode of one stream against the rate that reading the weights allows, one panel for each model and precision.

    The roofline comes from `roofline` records of the same model and precision. A figure above its roof cannot be
    plain decoding of those bytes: it is drawn as an outline with a warning, not as a result.

    Raises:
        LabsError: no decode throughput of a single stream was measured.
    """
    rows = list(measurements)
    panels: dict[tuple[str, str], list[Measurement]] = {}
    for m in sorted(_longest_single_streams(style.measured(rows, "decode_throughput")), key=lambda m: -m.value):
        panels.setdefault((m.model, m.precision), []).append(m)
    panels = dict(sorted(panels.items(), key=lambda item: -len(item[1])))  # the comparison first, lone rows after
    roofs = {(m.model, m.precision): m for m in rows if m.metric == "roofline"}
    heights = [len(panel) * 0.5 + 0.9 for panel in panels.values()]
    figure = style.new_figure(sum(heights) + 0.5)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, (key, panel) in zip(axes, panels.items(), strict=True):
        _draw_under_roof(ax, panel, roofs.get(key))
        where = " ".join(part for part in key if part)
        style.title(ax, f"Decode of one stream and its roofline: {where}")
    drawn = [m for panel in panels.values() for m in panel]
    style.caption(figure, drawn, *_roof_notes(drawn, roofs))
    return figure


def _draw_under_roof(ax: Axes, panel: Sequence[Measurement], roof: Measurement | None) -> None:
    """Bars of one model and precision, and their common roof as a line through all of them."""
    top = max([m.value + style.error_bar(m)[1] for m in panel] + ([roof.value] if roof else []))
    for y, m in enumerate(panel):
        low, high = style.error_bar(m)
        if (roof is not None and m.value > roof.value) or "above-roofline" in m.flags:
            ax.barh(y, m.value, height=0.5, facecolor="white", edgecolor=style.WARNING, hatch="////", linewidth=1.4)
            text, colour = f"{style.number(m.value)}: ABOVE ITS ROOF, not plain decode", style.WARNING
        else:
            ax.barh(y, m.value, height=0.5, color=style.engine_colour(m.engine))
            share = f", {_percent(m.value / roof.value)} of the roof" if roof else ""
            text, colour = f"{style.number(m.value)}{share}", style.INK
        ax.errorbar(m.value, y, xerr=[[low], [high]], fmt="none", ecolor=style.INK, capsize=3, linewidth=1)
        others = f", {', '.join(flag for flag in m.flags if flag != 'above-roofline')}".rstrip(", ")
        note = ax.annotate(
            plain(f"{text}\n{style.evidence(m)}{others}"),
            (m.value + high, y),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # the roof line may pass behind the text
    ax.set_yticks(range(len(panel)), [plain(fill(style.engine_title(m.engine), LABEL_CHARACTERS)) for m in panel])
    _finish(ax, len(panel), top, "decode_throughput", room=1.55)
    if roof:
        ax.axvline(roof.value, color=style.INK, linewidth=2.5)
        ax.annotate(f"roof {style.number(roof.value)}", (roof.value, 1), (5, -2), fontsize=8, va="top",
                    xycoords=("data", "axes fraction"), textcoords="offset points", color=style.INK)  # fmt: skip
    else:
        ax.annotate("no roofline for this model and precision", (1, 1), fontsize=8, ha="right", va="top",
                    xycoords="axes fraction", color=style.MUTED)  # fmt: skip


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _longest_single_streams(rows: Sequence[Measurement]) -> list[Measurement]:
    """Per engine, precision and model the single stream with the longest output; a prefill run's few tokens say little.

    Raises:
        LabsError: all of it was measured with several streams, which share one read of the weights: no roof applies.
    """
    longest: dict[tuple[str, str, str], Measurement] = {}
    for m in rows:
        key = (m.engine, m.precision, m.model)
        if m.load.concurrency in (None, 1) and (
            key not in longest or (m.load.output_tokens or 0) > (longest[key].load.output_tokens or 0)
        ):
            longest[key] = m
    if not longest:
        raise LabsError("nothing to draw: decode was measured with several streams only", "run it with concurrency=1")
    return list(longest.values())


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


def _roof_notes(taken: Sequence[Measurement], roofs: dict[tuple[str, str], Measurement]) -> list[str]:
    notes = []
    for key in dict.fromkeys((m.model, m.precision) for m in taken):
        roof = roofs.get(key)
        if roof is None:
            continue
        origin = (
            f"published, {roof.cited_from}"
            if roof.source == "reference"
            else f"measured bandwidth, {roof.load.workload}, best of n={roof.n}"
        )
        notes.append(f"roof {key[1]}: bandwidth / bytes per token = {style.number(roof.value)} tok/s ({origin})")
    return notes


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
            ticks.append((y, fill(style.series_name(m, among), LABEL_CHARACTERS), "normal"))
            y += 1
    ax.set_yticks([at for at, _, _ in ticks], [text for _, text, _ in ticks])
    for tick, (_, _, weight) in zip(ax.get_yticklabels(), ticks, strict=True):
        tick.set_fontweight(weight)
    _finish(ax, y, top, metric, room=1.75 if compact else 1.5)


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
    _finish(ax, len(cited), max(m.value for m in cited), metric)
    ax.tick_params(axis="y", labelsize=8)


def _sources(cited: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(m.cited_from or "" for m in cited))


def _footnotes(sources: Sequence[str]) -> list[str]:
    return [f"[{mark}] {source}" for mark, source in enumerate(sources, start=1)]


def _finish(ax: Axes, rows: int, top: float, metric: str, room: float = 1.5) -> None:
    style.clean_axes(ax, grid="x")
    ax.set_xlim(0, (top or 1) * room)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(style.THOUSANDS)
    ax.set_xlabel(style.axis_label(metric), fontsize=9, color=style.INK)
