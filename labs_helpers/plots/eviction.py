"""Hit rate against cache size: what was measured, on the line that was predicted."""

from __future__ import annotations

from collections.abc import Sequence

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure
from labs_helpers.results import Measurement


def hit_rate_by_cache_size(
    measured: Sequence[tuple[float, Measurement]], predicted: Sequence[tuple[float, float]] = ()
) -> LabFigure:
    """Share of prompt tokens that came from the cache, over the cache's size as a share of the working set.

    Args:
        measured: (size / working set, a `cache_hit_rate`).
        predicted: (size / working set, hit rate) of a simulated cache, a line.

    Raises:
        LabsError: nothing was measured, or a measurement is of another metric.
    """
    if not measured or any(m.metric != "cache_hit_rate" for _, m in measured):
        raise LabsError("nothing to draw: no cache hit rate was measured", "record cache_hit_rate at several sizes")
    figure = style.new_figure(3.6)
    ax = figure.subplots()
    if predicted:
        ax.plot(*zip(*sorted(predicted), strict=True), color=style.MUTED, linewidth=1.4, label="predicted")
    rows = [m for _, m in measured]
    for engine in dict.fromkeys(m.engine for m in rows):
        points = sorted((x, m.value, m.n) for x, m in measured if m.engine == engine)
        counts = sorted({n for _, _, n in points})
        ax.plot(
            [x for x, _, _ in points],
            [value for _, value, _ in points],
            "o",
            color=style.engine_colour(engine),
            markersize=7,
            label=f"{style.engine_title(engine)}, measured (n={', '.join(map(str, counts))} requests a point)",
        )
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1)
    ax.axvline(1.0, color=style.GRID, linewidth=1.2, zorder=0)
    ax.set_xlabel("Cache size / tokens of the working set", fontsize=9, color=style.INK)
    ax.set_ylabel("Prompt tokens from the cache", fontsize=9, color=style.INK)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    style.clean_axes(ax, grid="y")
    style.title(ax, "Hit rate under pressure")
    ax.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=style.INK)
    style.caption(figure, rows, "right of 1 everything fits; one run per point, so no spread")
    return figure
