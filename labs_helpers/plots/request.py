"""One request on a time axis: where TTFT ends, when tokens came, and when it was over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure


class Streamed(Protocol):
    """One streamed answer with its times in seconds; `bench.client.Sample` fits."""

    @property
    def intended(self) -> float: ...

    @property
    def end(self) -> float: ...

    @property
    def events(self) -> Sequence[tuple[float, int]]:
        """Arrival of each event with content, and the tokens it carried."""

    @property
    def completion_tokens(self) -> int: ...

    @property
    def tpot_s(self) -> float | None: ...


def timeline(sample: Streamed, *, engine: str = "", note: str = "") -> LabFigure:
    """Draw one streamed answer.

    Args:
        sample: one request of a run.
        engine: colours the figure and names it.
        note: machine, model and precision, shown below.

    Raises:
        LabsError: no event had content, or times run backwards.
    """
    if not sample.events:
        raise LabsError("nothing to draw: this request got no event with content", "look at its error")
    times = [(time - sample.intended) * 1e3 for time, _ in sample.events]
    tokens = [count for _, count in sample.events]
    last = (sample.end - sample.intended) * 1e3
    if times != sorted(times) or times[0] < 0 or last < times[-1]:
        raise LabsError("the events of this request are not in order of time", "use one monotonic clock for all")
    colour = style.engine_colour(engine) if engine else "#0072B2"
    figure = style.new_figure(2.7)
    ax = figure.subplots()
    ax.barh(0, times[0], height=0.5, color="#d9d9d9", align="edge")
    ax.barh(0, last - times[0], left=times[0], height=0.5, color=colour, alpha=0.18, align="edge")
    ax.vlines(times, 0, [0.5 * min(1.0, 0.4 + 0.15 * count) for count in tokens], color=colour, linewidth=1.1)
    ax.vlines([0, times[0], last], -0.1, 0.62, color=style.INK, linewidth=1.2)
    tpot = f", TPOT {style.number(sample.tpot_s * 1e3)} ms" if sample.tpot_s is not None else ""
    _span(ax, 0, times[0], f"TTFT {style.number(times[0])} ms: network, queue, prefill", last)
    _span(ax, times[0], last, f"decode: {len(times)} events{tpot}", last)
    ax.annotate("sent", (0, -0.1), (0, -4), textcoords="offset points", ha="left", va="top", fontsize=8)
    ax.annotate(
        f"last event, E2E {style.number(last)} ms",
        (last, -0.1),
        (0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
    )
    ax.set_xlim(-0.01 * last, last * 1.01)
    ax.set_ylim(-0.35, 1.05)
    ax.set_yticks([])
    ax.set_xlabel("Time since the intended send (ms)", fontsize=9, color=style.INK)
    style.clean_axes(ax, grid="x")
    style.title(ax, f"One request to {style.engine_title(engine)}" if engine else "One request")
    style.footnote(
        figure,
        f"n=1; one line per event with content, higher where it carried more tokens; "
        f"{sample.completion_tokens} completion tokens by the server's usage",
        *filter(None, [note]),
    )
    return figure


def _span(ax: Axes, start: float, stop: float, text: str, whole: float) -> None:
    """A bracket above the bar with its text; text of a short span starts at the span instead of being centred."""
    ax.annotate("", (start, 0.7), (stop, 0.7), arrowprops={"arrowstyle": "<->", "color": style.MUTED, "linewidth": 0.9})
    if stop - start > 0.4 * whole:
        ax.text((start + stop) / 2, 0.75, text, ha="center", va="bottom", fontsize=8.5, color=style.INK)
    else:
        ax.text(start, 0.9 if start == 0 else 0.75, text, ha="left", va="bottom", fontsize=8.5, color=style.INK)
