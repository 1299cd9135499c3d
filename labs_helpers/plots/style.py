"""What all figures share: colours, labels, captions, and the rule that an empty figure is an error."""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from labs_helpers.errors import LabsError
from labs_helpers.results import METRICS, Measurement

WIDTH_INCHES = 8.2
DPI = 110
INK = "#1a1a1a"
MUTED = "#595959"
GRID = "#e3e3e3"
WARNING = "#b00020"

# Okabe and Ito's palette: told apart with any of the common colour vision deficiencies. Grey is the baseline.
COLOURS = {
    "vllm": "#0072B2",
    "llamacpp": "#D55E00",
    "sglang": "#009E73",
    "tensorrtllm": "#E69F00",
    "ollama": "#CC79A7",
    "transformers": "#7a7a7a",
    "nim": "#56B4E9",
}
SPARE_COLOURS = ("#56B4E9", "#8c6d1f", "#6a4c93", "#3d5a80", "#9c3848")
TITLES = {"vllm": "vLLM", "sglang": "SGLang", "tensorrtllm": "TensorRT-LLM", "ollama": "Ollama", "nim": "NIM"}
LABEL_CHARACTERS = 26
"""Longer names of rows are folded."""
THOUSANDS = StrMethodFormatter("{x:,g}")
MARKERS = ("o", "s", "^", "D", "v", "P")


class LabFigure(Figure):
    """A figure that shows itself in a notebook without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def new_figure(height: float) -> LabFigure:
    """An empty white figure of the course's width; height in inches."""
    return LabFigure(
        figsize=(WIDTH_INCHES, height),
        dpi=DPI,
        facecolor="white",
        layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06),
    )


def engine_colour(engine: str) -> str:
    """The engine's colour, the same in every figure; 'vLLM + EAGLE-3' is coloured as vLLM."""
    name = _key(engine)
    for known, colour in COLOURS.items():
        if name.startswith(known):
            return colour
    return SPARE_COLOURS[zlib.crc32(name.encode()) % len(SPARE_COLOURS)]


def engine_title(engine: str) -> str:
    """The name as its makers write it, e.g. 'vLLM'."""
    return TITLES.get(_key(engine), engine)


def _key(engine: str) -> str:
    return re.sub(r"[^a-z0-9]", "", engine.lower())


def plain(text: str) -> str:
    """Text that matplotlib shows as it is; a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def measured(measurements: Iterable[Measurement], metric: str) -> list[Measurement]:
    """The measurements of one metric.

    Raises:
        LabsError: the metric is unknown, or none of it was measured: there is nothing to draw.
    """
    if metric not in METRICS:
        raise LabsError(f"there is no metric {metric!r}", "metrics: " + ", ".join(METRICS))
    found = [m for m in measurements if m.metric == metric and m.source == "measured"]
    if not found:
        raise LabsError(
            f"nothing to draw: no {METRICS[metric].title} was measured",
            "run the cells that record it; published figures alone are not drawn",
        )
    return found


def published(measurements: Iterable[Measurement], metric: str) -> list[Measurement]:
    """The reference figures of one metric, possibly none."""
    return [m for m in measurements if m.metric == metric and m.source == "reference"]


def series_name(m: Measurement, among: Sequence[Measurement]) -> str:
    """Engine, with its precision (and model) where the measurements differ in them."""
    parts = [engine_title(m.engine)]
    if len({other.precision for other in among}) > 1 and m.precision:
        parts.append(m.precision)
    if len({other.model for other in among}) > 1 and m.model:
        parts.append(m.model)
    return plain(" ".join(parts))


def axis_label(metric: str) -> str:
    """Title, unit and direction, e.g. 'Decode, one stream (tok/s), higher is better'."""
    m = METRICS[metric]
    direction = "" if m.better == "neither" else f", {m.better} is better"
    return f"{m.title} ({m.unit}){direction}"


def number(value: float) -> str:
    """Three significant digits, thousands separated: 0.532, 17.1, 1,040."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if magnitude >= 10 else f"{value:.3g}"


SPREAD_NAMES = {"iqr": "IQR", "bootstrap95": "95%", "minmax": "range"}


def evidence(m: Measurement) -> str:
    """Sample count and spread, e.g. 'n=12, IQR 41 to 46'."""
    if m.spread is None:
        return f"n={m.n}"
    return f"n={m.n}, {SPREAD_NAMES[m.spread.kind]} {number(m.spread.low)} to {number(m.spread.high)}"


def error_bar(m: Measurement) -> tuple[float, float]:
    """Distances below and above the value. A value outside its own spread (a maximum, a trimmed mean) gets 0 there."""
    if m.spread is None:
        return 0.0, 0.0
    return max(0.0, m.value - m.spread.low), max(0.0, m.spread.high - m.value)


def clean_axes(ax: Axes, grid: str) -> None:
    """No box, light grid lines across the value axis ('x' or 'y')."""
    for side in ("top", "right", "left" if grid == "x" else "top"):
        ax.spines[side].set_visible(False)
    ax.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9, colors=INK, length=0 if grid == "x" else 3)


def finish_bars(ax: Axes, rows: int, top: float, metric: str, room: float = 1.5) -> None:
    """Axes of a bar chart with `rows` rows; `room` is the width over the largest value, for the texts beside bars."""
    clean_axes(ax, grid="x")
    ax.set_xlim(0, (top or 1) * room)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_xlabel(axis_label(metric), fontsize=9, color=INK)


def caption(figure: Figure, rows: Sequence[Measurement], *notes: str) -> None:
    """A small line under the figure: what was measured, on which machine, and what else must be known."""
    workloads = _distinct(m.load.workload for m in rows)
    facts = [
        "measured on " + " / ".join(_distinct(m.machine for m in rows)),
        "model " + ", ".join(_distinct(m.model for m in rows)) if any(m.model for m in rows) else "",
        ", ".join(_distinct(m.precision for m in rows)),
        ", ".join(workloads) if len(workloads) < 4 else "",
    ]
    lines = [" · ".join(fact for fact in facts if fact), *notes]
    footnote(figure, *lines)


def footnote(figure: Figure, *lines: str) -> None:
    """Small lines under the figure."""
    text = "\n".join(wrapped for line in lines for wrapped in textwrap.wrap(line, 128, subsequent_indent="   "))
    figure.supxlabel(plain(text), x=0.01, ha="left", fontsize=7.5, color=MUTED)


def title(ax: Axes, text: str) -> None:
    """A left-aligned heading."""
    ax.set_title(plain(text), loc="left", fontsize=11, color=INK, fontweight="bold")


def _distinct(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in dict.fromkeys(values) if value]
