"""A radix tree as a picture: every run of tokens a box, as long as the run, as high as the leaves behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain

ROW_INCHES = 0.3
MOST_ROWS = 60
NARROWEST_LABEL = 0.055
"""A box narrower than this share of the picture holds no text."""


class Run(Protocol):
    """One node of a tree: `RadixTree`'s, or a student's own."""

    tokens: Sequence[Any]
    hits: int
    locks: int

    @property
    def children(self) -> Mapping[Any, Any]: ...


def radix_tree(root: Run, label: Callable[[list[int]], str] | None = None, title: str = "The radix tree") -> LabFigure:
    """Draw a tree from its own nodes.

    Args:
        root: has `children` (a mapping to nodes); each node has `tokens`, `children`, `hits` and `locks`.
        label: turns the tokens of a run into a short text.

    Raises:
        LabsError: it is empty, too large to read, or its nodes have no such attributes.
    """
    try:
        rows, depth, most_hits = _leaves(root), _depth(root), max((n.hits for n in _nodes(root)), default=0)
    except (AttributeError, TypeError) as error:
        raise LabsError(
            f"this tree cannot be drawn: {error}", "its nodes need tokens, children (a dict), hits and locks"
        ) from None
    if not root.children:
        raise LabsError("nothing to draw: the tree is empty", "insert something first")
    if rows > MOST_ROWS:
        raise LabsError(f"a tree of {rows} leaves is too large to read", f"draw one of at most {MOST_ROWS}")
    figure = style.new_figure(rows * ROW_INCHES + 1.3)
    ax = figure.subplots()
    _draw(ax, root, 0.0, 0.0, depth, most_hits, label)
    ax.set_xlim(0, depth)
    ax.set_ylim(rows, 0)
    ax.set_yticks([])
    ax.set_xlabel("Position in the prompt (tokens)", fontsize=9, color=style.INK)
    style.clean_axes(ax, grid="x")
    style.title(ax, title)
    style.footnote(
        figure,
        "each box is a run of tokens, as wide as it is long and stored once; what follows it stands to its right; "
        "the darker, the more matches came through (3×: three); a red frame is a lock",
    )
    return figure


def _draw(
    ax: Axes, node: Run, x: float, y: float, depth: int, most_hits: int, label: Callable[[list[int]], str] | None
) -> None:
    ramp = LinearSegmentedColormap.from_list("hits", ["#ffffff", "#bfe3d6", "#009E73"])
    for child in sorted(node.children.values(), key=lambda c: (-c.hits, -_leaves(c))):
        height, tokens = _leaves(child), _tokens(child)
        shade = child.hits / most_hits if most_hits else 0.0
        ax.add_patch(
            Rectangle(
                (x, y + 0.06),
                len(tokens),
                height - 0.12,
                facecolor=ramp(0.85 * shade),
                edgecolor=style.WARNING if child.locks else style.MUTED,
                linewidth=1.6 if child.locks else 0.7,
            )
        )
        _write(ax, child, tokens, x, y + height / 2, depth, label)
        _draw(ax, child, x + len(tokens), y, depth, most_hits, label)
        y += height


def _write(
    ax: Axes, node: Run, tokens: list[int], x: float, y: float, depth: int, label: Callable[[list[int]], str] | None
) -> None:
    share = len(tokens) / depth
    if share < NARROWEST_LABEL:
        return
    characters = int(share * 100)
    counts = f"{len(tokens)} tok, {node.hits} hit{'' if node.hits == 1 else 's'}"
    said = label(tokens) if label else ""
    text = f"{counts}: {said}" if said and len(counts) + 6 < characters else counts
    if len(text) > characters:
        text = text[: max(characters - 1, 1)] + "…" if text != counts else f"{node.hits}×"
    ax.text(x + 0.006 * depth, y, plain(text), va="center", ha="left", fontsize=7.5, color=style.INK, clip_on=True)


def _tokens(node: Run) -> list[int]:
    """The run's token ids, also where the tree is one of pages."""
    return [t for token in node.tokens for t in (token if isinstance(token, tuple | list) else (token,))]


def _nodes(node: Run) -> list[Run]:
    return [n for child in node.children.values() for n in (child, *_nodes(child))]


def _leaves(node: Run) -> int:
    return sum(map(_leaves, node.children.values())) or 1


def _depth(node: Run) -> int:
    return len(_tokens(node)) + max(map(_depth, node.children.values()), default=0)
