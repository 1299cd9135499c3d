"""Goodput against offered rate: where more requests stop being more service."""

from __future__ import annotations

from collections.abc import Iterable

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure
from labs_helpers.results import Measurement


def knee(measurements: Iterable[Measurement], limits: str, title: str = "", *, enough: float = 0.9) -> LabFigure:
    """Goodput of open loops over their request rate, with the line where every request is in time.

    Args:
        measurements: any records; goodput at a known request rate is drawn.
        limits: what counted as in time, in words.
        enough: share of the requests in time from which on a rate counts as served; the knee is the best of those.

    Raises:
        LabsError: no goodput was measured in an open loop.
    """
    taken = [m for m in style.measured(measurements, "goodput") if m.load.request_rate is not None]
    if not taken:
        raise LabsError("nothing to draw: no goodput of an open loop", "record a sweep with probes")
    taken.sort(key=lambda m: m.load.request_rate or 0)
    rates = [float(m.load.request_rate or 0) for m in taken]
    values = [m.value for m in taken]
    served = [m for m in taken if m.value >= enough * (m.load.request_rate or 0) * (1 - 1e-9)]
    best = max(served, key=lambda m: m.value, default=None)
    figure = style.new_figure(3.6)
    ax = figure.subplots()
    top = max(rates) * 1.08
    ax.plot([0, top], [0, top], color=style.MUTED, linewidth=1.2, linestyle=":", label="every request in time")
    ax.plot([0, top], [0, enough * top], color=style.GRID, linewidth=1.2, label=f"{enough:.0%} in time")
    low, high = zip(*(style.error_bar(m) for m in taken), strict=True)
    colour = style.engine_colour(taken[0].engine)
    counts = ", ".join(str(m.n) for m in taken)
    ax.errorbar(
        rates, values, yerr=[low, high], color=colour, linewidth=1.8, marker="o", markersize=6, capsize=3, elinewidth=1,
        label=f"{style.engine_title(taken[0].engine)} (n={counts} requests)",
    )  # fmt: skip
    bound = [(r, m.value) for r, m in zip(rates, taken, strict=True) if "client-bound" in m.flags]
    if bound:
        ax.plot(
            *zip(*bound, strict=True), "o", markersize=13, fillstyle="none", color=style.WARNING, label="! client-bound"
        )
    if best is not None:
        rate = best.load.request_rate or 0
        ax.annotate(
            f"knee: {best.value:.1f} req/s in time\nof {rate:.1f} offered",
            (rate, best.value),
            (0.04, 0.82),
            textcoords="axes fraction",
            fontsize=8.5,
            color=style.INK,
            arrowprops={"arrowstyle": "->", "color": style.MUTED},
        )
    ax.set_xlim(0, top)
    ax.set_ylim(0, top)
    ax.set_xlabel("Offered request rate (requests/s)", fontsize=9, color=style.INK)
    ax.set_ylabel(style.axis_label("goodput"), fontsize=9, color=style.INK)
    style.clean_axes(ax, grid="y")
    style.title(ax, title or "Where more load stops paying")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=style.INK)
    style.caption(figure, taken, f"in time: {limits}; bars: 95%, over the requests of a probe")
    return figure
