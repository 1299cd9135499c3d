"""The pictures of lab 3.3.2: a tree from its own nodes, and hit rates on their predicted line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from labs_helpers import plots
from labs_helpers.bench import RadixTree
from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.results import Load
from tests.synthetic import MACHINE, measurement, spread


def boxes(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


def a_tree() -> RadixTree:
    tree = RadixTree()
    for tail in (5, 6):
        tree.match([*range(100), *[1000 + tail] * 40])
        tree.insert([*range(100), *[1000 + tail] * 40])
    return tree


def test_every_run_is_a_box_as_wide_as_it_is_long():
    figure = plots.radix_tree(a_tree().root)
    assert sorted(box.get_width() for box in boxes(figure)) == [40, 40, 100]
    assert "100 tok, 1 hit" in texts(figure) and "0 hits" in texts(figure)


def test_a_lock_is_a_red_frame():
    tree = a_tree()
    tree.lock(list(range(100)))
    edges = [box.get_edgecolor() for box in boxes(plots.radix_tree(tree.root))]
    assert sum(edge[:3] == tuple(int(style.WARNING[i : i + 2], 16) / 255 for i in (1, 3, 5)) for edge in edges) == 1


def test_a_students_own_nodes_are_drawn_and_other_objects_are_refused():
    leaf = SimpleNamespace(tokens=[1, 2, 3], children={}, hits=2, locks=0)
    root: Any = SimpleNamespace(tokens=[], children={1: leaf}, hits=0, locks=0)
    assert len(boxes(plots.radix_tree(root, lambda ids: "said"))) == 1
    leaf.children = None
    with pytest.raises(LabsError, match="cannot be drawn"):
        plots.radix_tree(root)


def test_pages_are_as_wide_as_their_tokens():
    tree = RadixTree()
    tree.insert([(1, 2), (3, 4), (5, 6)])
    assert [box.get_width() for box in boxes(plots.radix_tree(tree.root))] == [6]


def test_an_empty_and_a_giant_tree_are_errors():
    with pytest.raises(LabsError, match="the tree is empty"):
        plots.radix_tree(RadixTree().root)
    tree = RadixTree()
    for token in range(200):
        tree.insert([token])
    with pytest.raises(LabsError, match="200 leaves"):
        plots.radix_tree(tree.root)


def a_rate(value: float) -> Any:
    return measurement("cache_hit_rate", value, engine="sglang", n=32)


def test_hit_rates_stand_on_the_predicted_line_with_their_samples():
    figure = plots.hit_rate_by_cache_size([(0.5, a_rate(0.4)), (2.0, a_rate(0.8))], [(0.2, 0.1), (3.0, 0.9)])
    found = texts(figure)
    assert "predicted" in found and "SGLang, measured (n=32" in found and MACHINE in found
    with pytest.raises(LabsError, match="nothing to draw"):
        plots.hit_rate_by_cache_size([])
    with pytest.raises(LabsError, match="nothing to draw"):
        plots.hit_rate_by_cache_size([(1.0, measurement("ttft"))])


def test_workloads_of_one_engine_are_lines_of_their_own_when_asked_for():
    rows = [
        measurement("ttft", v, spread=spread(v), load=Load(workload=kind, concurrency=1, prompt_tokens=length))
        for kind, factor in (("cold", 1.0), ("warm", 0.1))
        for length in (256, 1024)
        for v in [length * factor]
    ]
    assert "cold" in texts(plots.lines(rows, "ttft", x="prompt_tokens", by_workload=True))
    assert "cold" not in texts(plots.lines(rows, "ttft", x="prompt_tokens")).replace("cold, warm", "")


@pytest.mark.parametrize(
    "figure", [plots.radix_tree(a_tree().root), plots.hit_rate_by_cache_size([(1.0, a_rate(0.5))])]
)
def test_nothing_is_cut_off_at_the_edges(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.02 and drawn.y0 >= -0.02 and drawn.x1 <= width + 0.02 and drawn.y1 <= height + 0.02
