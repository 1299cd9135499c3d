"""What speculation gains and costs: speedups by method and text, over a variable, and where a step's time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain
from labs_helpers.results import METRICS, Measurement

METHODS = {
    "": ("plain", "#7a7a7a"),
    "prompt lookup": ("prompt lookup", "#CC79A7"),
    "draft model": ("draft model", "#E69F00"),
    "medusa": ("Medusa", "#0072B2"),
    "eagle": ("EAGLE", "#D55E00"),
    "eagle3": ("EAGLE-3", "#009E73"),
}
"""Name and colour of each way to draft, the same in every figure."""
ENGINES = {"labs speculation": "our loop"}
PARTS = {"draft": "#56B4E9", "verify": "#4a4a4a", "other": "#d0d0d0"}
ROW_INCHES = 0.34


def method_title(method: str) -> str:
    """The method as its authors write it, e.g. 'EAGLE-3'."""
    return METHODS[method][0] if method in METHODS else method


def method_colour(method: str) -> str:
    """The method's colour; a variant ('eagle3, depth 3') has that of its method."""
    for known in sorted(filter(None, METHODS), key=len, reverse=True):
        if method.startswith(known):
            return METHODS[known][1]
    return METHODS[""][1] if not method else style.engine_colour(method)


def speedups(measurements: Sequence[Measurement], title: str = "Speedup", *, by: str = "workload") -> LabFigure:
    """Speedup by method with its spread, in groups: by kind of text ('workload') or by 'engine'.

    Raises:
        LabsError: no speedup was measured.
    """
    rows = style.measured(measurements, "speedup")

    def group(m: Measurement) -> str:
        return m.load.workload if by == "workload" else ENGINES.get(m.engine, style.engine_title(m.engine))

    groups = {name: [m for m in rows if group(m) == name] for name in dict.fromkeys(map(group, rows))}
    lines = len(rows) + len(groups)
    figure = style.new_figure(lines * ROW_INCHES + 1.1)
    ax = figure.subplots()
    y, ticks = 0, []
    for name, members in groups.items():
        ticks.append((y, name, "bold"))
        for m in members:
            y += 1
            _bar(ax, y, m)
            ticks.append((y, method_title(m.method), "normal"))
        y += 1
    _name_rows(ax, ticks)
    ax.axvline(1.0, color=style.INK, linewidth=1.0, linestyle=":")
    style.finish_bars(ax, y, max(m.value + style.error_bar(m)[1] for m in rows), "speedup")
    style.title(ax, title)
    style.caption(figure, rows, "dotted line: without speculation; bars: bootstrap 95%; n: interleaved passes")
    return figure


def methods_compared(
    measurements: Sequence[Measurement], references: Sequence[Measurement] = (), title: str = "Six ways to draft"
) -> LabFigure:
    """Speedup and acceptance length of every method, side by side; published figures in a row of their own below.

    Raises:
        LabsError: no speedup was measured.
    """
    taken = style.measured(measurements, "speedup")
    keys = list(dict.fromkeys((m.engine, m.method) for m in taken))
    cited = [m for m in references if m.source == "reference" and m.metric in ("speedup", "acceptance_length")]
    cited_keys = list(dict.fromkeys((m.engine, m.model) for m in cited))
    heights = [len(keys) * ROW_INCHES + 0.7] + ([len(cited_keys) * ROW_INCHES + 0.7] if cited else [])
    sources = list(dict.fromkeys(m.cited_from or "" for m in cited))
    figure = style.new_figure(sum(heights) + 0.5 + 0.13 * len(sources))
    axes = figure.subplots(len(heights), 2, height_ratios=heights, squeeze=False)
    for ax, metric in zip(axes[0], ("speedup", "acceptance_length"), strict=True):
        found = {(m.engine, m.method): m for m in measurements if m.metric == metric and m.source == "measured"}
        rows = [(i, found[key]) for i, key in enumerate(keys) if key in found]
        for i, m in rows:
            _bar(ax, i, m, brief=True)
        several = len({engine for engine, _ in keys}) > 1
        _finish_half(ax, [_row_name(engine, method, several) for engine, method in keys], [m for _, m in rows], metric)
    style.title(axes[0][0], title)
    if cited:
        for ax, metric in zip(axes[1], ("speedup", "acceptance_length"), strict=True):
            known = {(m.engine, m.model): m for m in cited if m.metric == metric}
            for i, key in enumerate(cited_keys):
                if key in known:
                    _published(ax, i, known[key], sources)
            names = [f"{engine}, {model}" for engine, model in cited_keys]
            _finish_half(ax, names, list(known.values()), metric)
        style.title(axes[1][0], "Published by others: not measured here")
    for row in axes:
        row[1].set_yticklabels([])
    notes = [f"[{i}] {source}" for i, source in enumerate(sources, start=1)]
    style.caption(figure, taken, "dotted line: without speculation; bars: bootstrap 95%", *notes)
    return figure


def speedup_curve(
    measured: Sequence[tuple[float, Measurement]],
    *,
    x: str,
    predicted: Sequence[tuple[float, float]] = (),
    title: str = "",
    metric: str = "speedup",
) -> LabFigure:
    """Speedup (or acceptance length) over a variable, one line per engine and method, beside what was predicted.

    Args:
        measured: (value of the variable, measurement).
        x: what the variable is, for the axis.
        predicted: (value of the variable, predicted figure); drawn dashed, made before the measurement.

    Raises:
        LabsError: nothing of this metric was measured.
    """
    rows = style.measured([m for _, m in measured], metric)
    figure = style.new_figure(3.5)
    ax = figure.subplots()
    if predicted:
        ax.plot(*zip(*sorted(predicted), strict=True), "--D", color=style.MUTED, markersize=4, linewidth=1.4,
                label="predicted before")  # fmt: skip
    for i, key in enumerate(dict.fromkeys((m.engine, m.method, m.load.workload) for m in rows)):
        points = sorted(
            ((at, m) for at, m in measured if (m.engine, m.method, m.load.workload) == key and m.metric == metric),
            key=lambda point: point[0],
        )
        low, high = zip(*(style.error_bar(m) for _, m in points), strict=True)
        counts = sorted({m.n for _, m in points})
        several = len({m.load.workload for m in rows}) > 1
        name = _row_name(key[0], key[1], several=True) + (f", {key[2]}" if several else "")
        ax.errorbar(
            [at for at, _ in points], [m.value for _, m in points], yerr=[low, high],
            color=method_colour(key[1]), linewidth=1.8, capsize=3, elinewidth=1,
            marker=style.MARKERS[i % len(style.MARKERS)], markersize=6,
            linestyle="-" if i == 0 or not several else ("-", "--", ":")[i % 3],
            label=f"{name} (n={', '.join(map(str, counts))})",
        )  # fmt: skip
    if metric == "speedup":
        ax.axhline(1.0, color=style.INK, linewidth=1.0, linestyle=":")
    ax.set_ylim(bottom=0)
    ax.set_xticks(sorted({at for at, _ in (*measured, *predicted)}))
    ax.set_xlabel(x, fontsize=9, color=style.INK)
    ax.set_ylabel(style.axis_label(metric), fontsize=9, color=style.INK)
    style.clean_axes(ax, grid="y")
    style.title(ax, title or f"{METRICS[metric].title} by {x.split(' (')[0].lower()}")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)
    style.caption(figure, rows, "bars: bootstrap 95%" if any(m.spread for m in rows) else "one figure per point")
    return figure


def acceptance_by_position(
    rates: Mapping[str, Sequence[float]], *, rounds: Mapping[str, int], title: str = "Acceptance by position"
) -> LabFigure:
    """Of the rounds that accepted all drafts before a position, the share that accepted this one too.

    Args:
        rates: by method, first draft first.
        rounds: by method, how many rounds are behind the first rate.

    Raises:
        LabsError: there are no rates.
    """
    if not rates or not any(map(len, rates.values())):
        raise LabsError("nothing to draw: no draft was verified", "generate something with a draft first")
    figure = style.new_figure(3.3)
    ax = figure.subplots()
    for i, (name, shares) in enumerate(rates.items()):
        ax.plot(
            range(1, len(shares) + 1), shares, color=method_colour(name), linewidth=1.8,
            marker=style.MARKERS[i % len(style.MARKERS)], markersize=6,
            label=f"{method_title(name)} (n={rounds[name]:,} rounds)",
        )  # fmt: skip
    ax.set_ylim(0, 1.02)
    ax.set_xticks(range(1, max(map(len, rates.values())) + 1))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("Position of the draft", fontsize=9, color=style.INK)
    ax.set_ylabel("Accepted, where all before were", fontsize=9, color=style.INK)
    style.clean_axes(ax, grid="y")
    style.title(ax, title)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)
    return figure


def cost_breakdown(
    costs: Mapping[str, Mapping[str, float]], *, title: str = "Where the time of one step goes", note: str = ""
) -> LabFigure:
    """Milliseconds of one target step by part, one bar per method.

    Args:
        costs: by method, {'draft': ms, 'verify': ms, 'other': ms}.

    Raises:
        LabsError: there is nothing to draw.
    """
    if not costs:
        raise LabsError("nothing to draw: no step was timed", "measure a method first")
    figure = style.new_figure(len(costs) * ROW_INCHES + 1.1)
    ax = figure.subplots()
    for y, parts in enumerate(costs.values()):
        left = 0.0
        for part, colour in PARTS.items():
            width = parts.get(part, 0.0)
            ax.barh(y, width, left=left, height=0.6, color=colour, label=part if y == 0 else None)
            left += width
        ax.annotate(f"{style.number(left)} ms", (left, y), (5, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(costs)), [plain(method_title(name)) for name in costs])
    style.clean_axes(ax, grid="x")
    ax.set_ylim(len(costs) - 0.4, -0.6)
    ax.set_xlim(0, 1.15 * max(sum(parts.values()) for parts in costs.values()))
    ax.set_xlabel("One round: draft, verify, accept (ms)", fontsize=9, color=style.INK)
    style.title(ax, title)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)
    if note:
        style.footnote(figure, note)
    return figure


def _row_name(engine: str, method: str, several: bool) -> str:
    where = ENGINES.get(engine, style.engine_title(engine))
    return f"{method_title(method)}, {where}" if several else method_title(method)


def _bar(ax: Axes, y: float, m: Measurement, brief: bool = False) -> None:
    low, high = style.error_bar(m)
    ours = m.engine in ENGINES
    ax.barh(y, m.value, height=0.62, color=method_colour(m.method), alpha=1.0 if ours else 0.75,
            hatch=None if ours else "///", edgecolor="white", linewidth=0)  # fmt: skip
    if low or high:
        ax.errorbar(m.value, y, xerr=[[low], [high]], fmt="none", ecolor=style.INK, capsize=3, linewidth=1)
    said = f"n={m.n}" if brief else style.evidence(m)
    ax.annotate(f"{style.number(m.value)}  ({said})", (m.value + high, y), (5, 0), textcoords="offset points",
                va="center", fontsize=8, color=style.INK)  # fmt: skip


def _published(ax: Axes, y: float, m: Measurement, sources: Sequence[str]) -> None:
    ax.barh(y, m.value, height=0.55, facecolor="white", edgecolor=method_colour(_method(m.engine)), linestyle="--",
            linewidth=1.3)  # fmt: skip
    mark = sources.index(m.cited_from or "") + 1
    ax.annotate(f"{style.number(m.value)} [{mark}]", (m.value, y), (5, 0), textcoords="offset points", va="center",
                fontsize=8, color=style.MUTED)  # fmt: skip


def _method(title: str) -> str:
    """The key of a method by the name papers give it; 'EAGLE-2' is a kind of EAGLE, 'Medusa-1' of Medusa."""
    plain_name = title.lower().replace("-", "")
    return next((key for key in ("eagle3", "eagle", "medusa") if plain_name.startswith(key)), title)


def _finish_half(ax: Axes, names: Sequence[str], rows: Sequence[Measurement], metric: str) -> None:
    ax.set_yticks(range(len(names)), [plain(name) for name in names])
    if metric == "speedup":
        ax.axvline(1.0, color=style.INK, linewidth=1.0, linestyle=":")
    top = max((m.value + style.error_bar(m)[1] for m in rows), default=1.0)
    style.finish_bars(ax, len(names), top, metric, room=1.35)
    ax.tick_params(axis="y", labelsize=8.5)


def _name_rows(ax: Axes, ticks: Sequence[tuple[float, str, str]]) -> None:
    ax.set_yticks([at for at, _, _ in ticks], [plain(text) for _, text, _ in ticks])
    for label, (_, _, weight) in zip(ax.get_yticklabels(), ticks, strict=True):
        label.set_fontweight(weight)
