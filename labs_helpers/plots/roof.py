"""Decode against its roofline: what an engine reaches of what the memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill

from matplotlib.axes import Axes

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain
from labs_helpers.results import Measurement


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
        known = roof is not None and "machine-busy" not in roof.flags  # a lower bound of the roof refutes nothing
        if (known and roof is not None and m.value > roof.value) or "above-roofline" in m.flags:
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
    ax.set_yticks(range(len(panel)), [plain(fill(style.engine_title(m.engine), style.LABEL_CHARACTERS)) for m in panel])
    style.finish_bars(ax, len(panel), top, "decode_throughput", room=1.55)
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
        if "machine-busy" in roof.flags:
            origin += "; the machine was busy, so the true roof is higher"
        notes.append(f"roof {key[1]}: bandwidth / bytes per token = {style.number(roof.value)} tok/s ({origin})")
    return notes
