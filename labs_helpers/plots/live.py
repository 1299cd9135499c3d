"""An engine seen from inside while a load ran: requests, KV blocks and preemptions over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from matplotlib.ticker import MaxNLocator

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure


class Moment(Protocol):
    """What this figure needs of a look at the metrics page; see `labs_helpers.bench.live`."""

    @property
    def at(self) -> float: ...
    @property
    def running(self) -> float: ...
    @property
    def waiting(self) -> float: ...
    @property
    def kv_usage(self) -> float: ...
    @property
    def preemptions(self) -> float: ...


def live(moments: Sequence[Moment], label: str, title: str = "") -> LabFigure:
    """Running and waiting requests above, the share of KV blocks in use below, marks where preemptions were counted.

    vLLM counts a preemption when the request runs again; when it had to go shows as a fall of the running ones.

    Args:
        moments: in order of time.
        label: engine, model and precision, for the caption.

    Raises:
        LabsError: fewer than two moments.
    """
    if len(moments) < 2:
        raise LabsError(f"nothing to draw: {len(moments)} looks at the metrics page", "watch a longer load")
    figure = style.new_figure(4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    times = [m.at for m in moments]
    colour = style.engine_colour("vllm")
    above.step(times, [m.running for m in moments], where="post", color=colour, linewidth=1.8, label="running")
    above.step(
        times,
        [m.waiting for m in moments],
        where="post",
        color=style.COLOURS["llamacpp"],
        linewidth=1.4,
        linestyle="--",
        label="waiting",
    )
    above.set_ylabel("Requests", fontsize=9, color=style.INK)
    below.step(
        times, [m.kv_usage for m in moments], where="post", color=colour, linewidth=1.8, label="KV blocks in use"
    )
    below.fill_between(times, [m.kv_usage for m in moments], step="post", color=colour, alpha=0.12)
    preempted = [(b.at, b.kv_usage) for a, b in pairwise(moments) if b.preemptions > a.preemptions]
    total = round(moments[-1].preemptions)
    if preempted:
        below.plot(
            *zip(*preempted, strict=True), "v", color=style.WARNING, markersize=7, label="preempted ones came back"
        )
    below.set_ylabel("KV blocks in use", fontsize=9, color=style.INK)
    below.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    below.set_ylim(0, 1.12)
    below.set_yticks([0, 0.5, 1])
    below.set_xlabel("Seconds since the load began", fontsize=9, color=style.INK)
    for ax in (above, below):
        ax.set_xlim(0, times[-1])
        style.clean_axes(ax, grid="y")
        ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)
    above.set_ylim(bottom=0)
    above.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    style.title(above, title or "The engine while the load ran")
    gaps = sorted(b - a for a, b in pairwise(times))
    style.footnote(
        figure,
        f"read from /metrics of {label}: {len(moments)} looks, {gaps[len(gaps) // 2] * 1e3:.0f} ms apart (median); "
        f"{total} preemptions",
    )
    return figure
