"""The decision matrix: engines against use cases, scores computed from measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain

Scores = Mapping[str, float | None] | Sequence[tuple[str, float | None]]


def decision_matrix(
    scores: Mapping[str, Scores], *, note: str = "", title: str = "Which engine for which use"
) -> LabFigure:
    """A table of scores from 0 to 1 by use case and engine, the best of each use case outlined.

    Args:
        scores: by use case, each engine's score as a mapping or as (engine, score) pairs, which is what `bench.rank`
            returns; None or NaN where the measurements do not answer (shown as such).
        note: how the scores were computed and on which machine, shown below.

    Raises:
        LabsError: no use case, no engine, or a score outside 0 to 1.
    """
    rows = {use_case: dict(row) for use_case, row in scores.items()}
    engines = sorted({engine for row in rows.values() for engine in row})
    if not engines:
        raise LabsError("nothing to draw: the decision matrix has no engines", "measure engines first, then score them")
    figure = style.new_figure(0.42 * len(scores) + 1.3)
    ax = figure.subplots()
    ramp = LinearSegmentedColormap.from_list("score", ["#ffffff", "#9ecae1", "#2b7bba"])
    for y, (use_case, row) in enumerate(rows.items()):
        checked = {engine: _score(row.get(engine), use_case, engine) for engine in engines}
        known = {engine: value for engine, value in checked.items() if value is not None}
        best = max(known.values(), default=None)
        for x, engine in enumerate(engines):
            value = known.get(engine)
            colour = ramp(value * 0.8) if value is not None else "#f2f2f2"
            ax.add_patch(_cell(x, y, colour))
            if value is not None and value == best:
                ax.add_patch(_cell(x, y, "none", edge=style.INK))
            ax.text(
                x,
                y,
                "not measured" if value is None else f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8 if value is None else 10,
                color=style.MUTED if value is None else style.INK,
                fontweight="bold" if value is not None and value == best else "normal",
            )
    ax.set_xticks(range(len(engines)), [plain(style.engine_title(engine)) for engine in engines])
    ax.set_yticks(range(len(scores)), [plain(use_case) for use_case in scores])
    ax.set_xlim(-0.5, len(engines) - 0.5)
    ax.set_ylim(len(scores) - 0.45, -0.55)
    ax.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False, colors=style.INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    style.title(ax, title)
    style.footnote(
        figure, "score 0 to 1, higher is better; the outlined cell is the best of its row", *filter(None, [note])
    )
    return figure


def _score(value: float | None, use_case: str, engine: str) -> float | None:
    if value is None or math.isnan(value):
        return None
    if not 0 <= value <= 1:
        raise LabsError(f"the score of {engine} for {use_case!r} is {value:g}", "scores go from 0 to 1")
    return float(value)


def _cell(x: int, y: int, face: Any, edge: str = "white") -> Rectangle:
    inset = 0.04 if edge != "white" else 0.0
    return Rectangle(
        (x - 0.5 + inset, y - 0.5 + inset), 1 - 2 * inset, 1 - 2 * inset, facecolor=face, edgecolor=edge, linewidth=2
    )
