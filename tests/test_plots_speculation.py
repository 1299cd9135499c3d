"""The pictures of labs 3.3.4 and 3.3.5: trees from their parent list, speedups with what they are held against."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text

from labs_helpers import plots, references
from labs_helpers.errors import LabsError
from labs_helpers.plots.speculation import METHODS, method_colour
from labs_helpers.results import Load, Spread
from tests.synthetic import measurement, reference

LOOP = "labs speculation"
PARENTS = [-1, 0, 0, 1, 1, 3]
LABELS = ["The", " cache", " KV", " keeps", " is", " keys"]


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


def speedup(method="medusa", value=2.0, workload="mixed", engine=LOOP, metric="speedup", **fields):
    spread = Spread(low=0.9 * value, high=1.1 * value, kind="bootstrap95")
    return measurement(
        metric, value, engine=engine, method=method, spread=spread, load=Load(workload=workload), **fields
    )


def test_every_node_is_a_box_one_column_right_of_its_parent():
    ax = plots.token_tree(PARENTS, LABELS).axes[0]
    boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
    columns = [box.get_x() + 0.4 for box in boxes]
    assert columns == pytest.approx([0, 1, 1, 2, 2, 3])
    places = {(box.get_x(), box.get_y()) for box in boxes}
    assert len(places) == len(PARENTS), "no box lies on another"


def test_the_accepted_path_is_green_and_the_root_with_it():
    ax = plots.token_tree(PARENTS, LABELS, accepted=[1, 3]).axes[0]
    colours = [box.get_facecolor() for box in ax.patches if isinstance(box, FancyBboxPatch)]
    assert [node for node, colour in enumerate(colours) if colour != (1, 1, 1, 1)] == [0, 1, 3]


def test_the_mask_is_drawn_as_it_was_given():
    mask = [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    figure = plots.token_tree([-1, 0, 0], ["a", "b", "c"], mask=mask)
    fields = [p for p in figure.axes[1].patches if isinstance(p, Rectangle)]
    seen = {(round(f.get_y() + 0.5), round(f.get_x() + 0.5)) for f in fields if f.get_facecolor() != (1, 1, 1, 1)}
    assert seen == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)}


@pytest.mark.parametrize("parents", [[], [0], [-1, 1], [-1, 2, 0], [-1, -1]])
def test_what_is_no_tree_is_refused(parents):
    with pytest.raises(LabsError, match="is no tree"):
        plots.token_tree(parents, ["x"] * len(parents))


def test_a_tree_too_large_to_read_or_without_labels_is_refused():
    with pytest.raises(LabsError, match="too large"):
        plots.token_tree([-1, *range(60)], ["x"] * 61)
    with pytest.raises(LabsError, match="as many labels"):
        plots.token_tree([-1, 0], ["x"])


def test_text_with_dollars_and_newlines_is_shown_as_it_is():
    figure = plots.token_tree([-1, 0], ["$x^2$", "\n"])
    assert r"\$x^2\$" in texts(figure) and "↵" in texts(figure)
    figure.savefig("/dev/null", format="png")


def test_speedups_are_grouped_by_text_with_spread_and_count():
    figure = plots.speedups([speedup(workload=w, value=v) for w, v in (("seen-like", 2.5), ("off-domain", 1.2))])
    shown = texts(figure)
    assert "seen-like" in shown and "off-domain" in shown and "Medusa" in shown
    assert "n=5, 95% 2.25 to 2.75" in shown


def test_a_method_has_one_colour_and_so_have_its_variants():
    assert method_colour("eagle3, depth 5") == method_colour("eagle3") != method_colour("eagle")
    assert len({colour for _, colour in METHODS.values()}) == len(METHODS)


def test_references_stand_in_panels_of_their_own():
    taken = [speedup("medusa", 2.5), speedup("eagle3", 2.8, engine="vllm"), speedup(metric="acceptance_length")]
    figure = plots.methods_compared(taken, references.SPECULATION)
    above, below = (texts_of(figure.axes[i]) for i in (0, 2))
    assert "Medusa, our loop" in above and "EAGLE-3, vLLM" in above and "Vicuna" not in above
    assert "EAGLE-3, Vicuna-13B" in below and "5.51 [1]" in below and "our loop" not in below
    assert "arXiv:2503.01840" in texts(figure)


def texts_of(ax):
    return "\n".join(t.get_text() for t in ax.findobj(Text))


def test_references_alone_are_not_drawn_as_a_comparison():
    with pytest.raises(LabsError, match="nothing to draw"):
        plots.methods_compared([reference("speedup", 5.51)], [])


def test_the_prediction_is_a_line_beside_the_measured_one():
    figure = plots.speedup_curve([(n, speedup()) for n in (2, 4)], predicted={2: 1.9, 4: 2.2}.items(), x="Drafts")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["predicted before"].get_ydata()) == [1.9, 2.2]
    assert "Medusa, our loop (n=5)" in texts(figure)


def test_acceptance_begins_at_the_first_position():
    figure = plots.acceptance_by_position({"medusa": [0.9, 0.8]}, rounds={"medusa": 1200})
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [1, 2] and list(line.get_ydata()) == [0.9, 0.8]
    assert "Medusa (n=1,200 rounds)" in texts(figure)
    with pytest.raises(LabsError, match="nothing to draw"):
        plots.acceptance_by_position({}, rounds={})


def test_the_parts_of_a_round_add_up_to_its_bar():
    figure = plots.cost_breakdown({"": {"verify": 3.0}, "eagle3": {"draft": 1.5, "verify": 3.5, "other": 0.5}})
    assert "3 ms" in texts(figure) and "5.5 ms" in texts(figure)
    ends = [p.get_x() + p.get_width() for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert max(ends) == pytest.approx(5.5)
    with pytest.raises(LabsError, match="no step was timed"):
        plots.cost_breakdown({})
