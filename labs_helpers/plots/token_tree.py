"""A tree of drafted tokens as a picture, and beside it the mask under which one step verifies all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.plots.style import LabFigure, plain

ACCEPTED = "#009E73"
ROW_INCHES = 0.34
LONGEST_LABEL = 13
MOST_NODES = 48


def token_tree(
    parents: Sequence[int],
    labels: Sequence[str],
    *,
    mask: Sequence[Sequence[int]] | None = None,
    accepted: Collection[int] = (),
    notes: Sequence[str] = (),
    title: str = "The tree of drafts",
) -> LabFigure:
    """Draw a tree from its parent list: a box for each node, the root at the left, one column for each position.

    Args:
        parents: of each node the node before it, -1 for the root; a parent stands before its children.
        labels: a short text for each node.
        mask: which nodes (columns) each node (row) sees; drawn at the right when given.
        accepted: nodes of the accepted path, drawn green.
        notes: a small text under each node, e.g. its probability.

    Raises:
        LabsError: there is no tree, it is too large to read, or the lists do not fit together.
    """
    if not parents or parents[0] != -1 or any(not 0 <= parent < node for node, parent in enumerate(parents) if node):
        raise LabsError(f"{list(parents)!r} is no tree", "the root is -1, and every parent stands before its children")
    if len(parents) > MOST_NODES:
        raise LabsError(f"a tree of {len(parents)} nodes is too large to read", f"draw one of at most {MOST_NODES}")
    if len(labels) != len(parents) or (mask is not None and len(mask) != len(parents)):
        raise LabsError(f"{len(parents)} nodes need as many labels and rows of the mask", "give one for each node")
    rows = _rows(parents)
    height = (max(rows) + 1) * ROW_INCHES + 1.1
    figure = style.new_figure(max(height, 2.4 if mask is None else 3.3))
    if mask is None:
        ax = figure.subplots()
    else:
        ax, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        _draw_mask(right, mask, labels, accepted)
    _draw_tree(ax, parents, labels, rows, accepted, notes)
    style.title(ax, title)
    told = "green: the longest path on which every draft is what the target chose" if accepted else ""
    if mask is not None:
        told += ("; " if told else "") + "in the mask, each row is a node and each dark field a node it sees"
    if told:
        style.footnote(figure, told)
    return figure


def _rows(parents: Sequence[int]) -> list[float]:
    """The vertical place of each node: leaves one under the other, a parent level with its first child."""
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    rows, free = [0.0] * len(parents), 0

    def place(node: int) -> None:
        nonlocal free
        for child in children[node]:
            place(child)
        if children[node]:
            rows[node] = rows[children[node][0]]
        else:
            rows[node], free = float(free), free + 1

    place(0)
    return rows


def _draw_tree(
    ax: Axes,
    parents: Sequence[int],
    labels: Sequence[str],
    rows: Sequence[float],
    accepted: Collection[int],
    notes: Sequence[str],
) -> None:
    depths = [0] * len(parents)
    for node, parent in enumerate(parents):
        depths[node] = depths[parent] + 1 if parent >= 0 else 0
    on_path = {0, *accepted} if accepted else set()
    for node, parent in enumerate(parents):
        if parent >= 0:
            taken = node in on_path
            ax.plot(
                [depths[parent] + 0.4, depths[parent] + 0.5, depths[parent] + 0.5, depths[node] - 0.4],
                [rows[parent], rows[parent], rows[node], rows[node]],
                color=ACCEPTED if taken else style.MUTED,
                linewidth=2.0 if taken else 0.9,
                zorder=2 if taken else 1,
            )
        box = FancyBboxPatch(
            (depths[node] - 0.4, rows[node] - 0.3),
            0.8,
            0.6,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="#d5efe6" if node in on_path else "white",
            edgecolor=ACCEPTED if node in on_path else style.MUTED,
            linewidth=1.6 if node in on_path else 0.9,
            zorder=3,
        )
        ax.add_patch(box)
        note = f"\n{notes[node]}" if node < len(notes) and notes[node] else ""
        text = f"{_short(labels[node])}{note}"
        ax.text(
            depths[node], rows[node], plain(text), ha="center", va="center", fontsize=7 if note else 8,
            color=style.INK, zorder=4, linespacing=1.0,
        )  # fmt: skip
    ax.set_xlim(-0.5, max(depths) + 0.5)
    ax.set_ylim(max(rows) + 0.5, -0.5)
    names = ["last token"] + [f"draft {depth}" for depth in range(1, max(depths) + 1)]
    ax.set_xticks(range(max(depths) + 1), names)
    ax.set_yticks([])
    style.clean_axes(ax, grid="x")
    ax.grid(visible=False)
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)


def _draw_mask(ax: Axes, mask: Sequence[Sequence[int]], labels: Sequence[str], accepted: Collection[int]) -> None:
    size = len(mask)
    on_path = {0, *accepted} if accepted else set()
    for row in range(size):
        for column in range(size):
            seen = bool(mask[row][column])
            green = seen and row in on_path
            colour = ACCEPTED if green else "#4a4a4a"
            ax.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=colour if seen else "white", edgecolor=style.GRID,
                    linewidth=0.8,
                )
            )  # fmt: skip
    ax.set_xlim(-0.5, size - 0.5)
    ax.set_ylim(size - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_yticks(range(size), [plain(_short(label)) for label in labels])
    ax.set_xticks(range(size), [plain(_short(label)) for label in labels], rotation=90)
    ax.tick_params(labelsize=7 if size <= 16 else 5, length=0, colors=style.INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    style.title(ax, "What each may see")


def _short(label: str) -> str:
    shown = label.replace("\n", "↵") if label.strip(" ") else label.replace(" ", "␣")
    return shown if len(shown) <= LONGEST_LABEL else shown[: LONGEST_LABEL - 1] + "…"
