"""Every figure shows units, sample counts and spread, keeps references apart and flags what is above its roof."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from labs_helpers import plots, references
from labs_helpers.bench.client import Sample
from labs_helpers.bench.metrics import Event
from labs_helpers.errors import LabsError
from labs_helpers.plots import style
from labs_helpers.results import METRICS, Load, Measurement
from tests.synthetic import MACHINE, lab_measurements, measurement, reference, spread

ROWS = lab_measurements()


def texts(figure: Figure) -> str:
    """Everything written in a figure, as a reader finds it."""
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_text()).replace(r"\$", "$")


def bar_widths(figure: Figure, panel: int) -> list[float]:
    found = [c for c in figure.axes[panel].containers if isinstance(c, BarContainer)]
    return [patch.get_width() for container in found for patch in container]


def a_sample(**fields: Any) -> Sample:
    events = tuple(Event(10.2 + 0.02 * i, 4 if i == 0 else 1) for i in range(8))
    return Sample(**{"intended": 10.0, "sent": 10.0, "end": 10.34, "events": events, "completion_tokens": 11, **fields})


DRAWINGS: dict[str, Callable[[list[Measurement]], Figure]] = {
    "bars": lambda rows: plots.bars(rows, "decode_throughput"),
    "lines": lambda rows: plots.lines(rows, "output_throughput"),
    "prefill": lambda rows: plots.lines(rows, "prefill_throughput", x="prompt_tokens"),
    "latency_throughput": plots.latency_throughput,
    "startup_and_memory": plots.startup_and_memory,
    "decode_vs_roofline": plots.decode_vs_roofline,
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_names_unit_samples_machine_model_and_precision(name: str) -> None:
    found = texts(DRAWINGS[name](ROWS))
    assert "tok/s" in found or "MiB" in found
    assert "n=" in found
    assert MACHINE in found and "labs-13m" in found and "fp32" in found


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("rows", [[], [reference(), reference("prefill_throughput"), reference("output_throughput")]])
def test_without_measurements_there_is_an_error_instead_of_an_empty_figure(name: str, rows: list[Measurement]) -> None:
    with pytest.raises(LabsError, match="nothing to draw"):
        DRAWINGS[name](rows)


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("suffix", ["", " with EAGLE-3 and prefix cache"])
def test_nothing_is_cut_off_at_the_edges(name: str, suffix: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = DRAWINGS[name]([m.model_copy(update={"engine": m.engine + suffix}) for m in ROWS])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.02 and drawn.y0 >= -0.02
    assert drawn.x1 <= width + 0.02 and drawn.y1 <= height + 0.02


@pytest.mark.parametrize("metric", METRICS)
def test_an_axis_says_title_unit_and_direction(metric: str) -> None:
    label = style.axis_label(metric)
    assert METRICS[metric].title in label and f"({METRICS[metric].unit})" in label
    assert METRICS[metric].better == "neither" or METRICS[metric].better in label


def test_the_spread_is_drawn_and_written() -> None:
    figure = plots.bars([measurement(value=100, spread=spread(100), n=7)], "decode_throughput")
    assert any(isinstance(c, ErrorbarContainer) for c in figure.axes[0].containers)
    assert "n=7, IQR 94.0 to 106" in texts(figure)


def test_a_value_outside_its_spread_draws_no_negative_bar() -> None:
    assert style.error_bar(measurement(value=110, spread=spread(100))) == (pytest.approx(16), 0.0)


def test_flags_are_written_beside_the_bar() -> None:
    assert "client-bound" in texts(plots.bars([measurement(flags=("client-bound",))], "decode_throughput"))


def test_references_stand_in_a_panel_of_their_own_with_their_sources() -> None:
    mine = [measurement(value=400, engine="vllm"), measurement(value=300, engine="llama.cpp")]
    figure = plots.bars([*mine, *references.spark()], "decode_throughput")
    published = [m.value for m in references.spark() if m.metric == "decode_throughput"]
    assert sorted(bar_widths(figure, 0)) == [300, 400]
    assert bar_widths(figure, 1) == published
    assert all(patch.get_facecolor()[:3] == (1, 1, 1) for patch in figure.axes[1].patches)
    assert references.LMSYS in texts(figure)
    assert not figure.axes[0].get_shared_x_axes().joined(figure.axes[0], figure.axes[1])


def test_references_never_become_points_of_a_curve() -> None:
    curve = [measurement("output_throughput", v, load=Load(concurrency=c)) for c, v in ((1, 10), (4, 30))]
    figure = plots.lines([*curve, reference("output_throughput", 368, load=Load(concurrency=32))], "output_throughput")
    assert [list(line.get_ydata()) for line in _curves(figure)] == [[10, 30]]


def test_references_alone_are_drawn_by_their_own_function() -> None:
    found = texts(plots.references(references.spark()))
    assert found.count("not measured here") == 3
    assert references.LMSYS in found and "batch 32" in found
    with pytest.raises(LabsError, match="no published figures"):
        plots.references(ROWS)


def _curves(figure: Figure) -> list[Any]:
    return [container.lines[0] for container in figure.axes[0].containers if isinstance(container, ErrorbarContainer)]


def test_a_curve_holds_what_differs_in_one_variable_only() -> None:
    """Prefill runs record an output rate too; it must not become a zigzag at concurrency 1."""
    for line in _curves(plots.lines(ROWS, "output_throughput")):
        assert list(line.get_xdata()) == [1, 4, 16]
    for line in _curves(plots.lines(ROWS, "prefill_throughput", x="prompt_tokens")):
        assert list(line.get_xdata()) == [48, 64, 256, 1024, 2048]


def test_an_engine_with_a_single_point_is_still_shown() -> None:
    rows = [measurement("output_throughput", v, load=Load(concurrency=c)) for c, v in ((1, 10), (4, 30))]
    lonely = measurement("output_throughput", 5, engine="ollama", load=Load(concurrency=1))
    assert len(_curves(plots.lines([*rows, lonely], "output_throughput"))) == 2


def test_a_curve_over_an_unknown_variable_is_an_error() -> None:
    with pytest.raises(LabsError, match="no load variable"):
        plots.lines(ROWS, "ttft", x="moon_phase")  # type: ignore[arg-type]
    with pytest.raises(LabsError, match="at a known request_rate"):
        plots.lines(ROWS, "ttft", x="request_rate")
    with pytest.raises(LabsError, match="no metric"):
        plots.lines(ROWS, "speed")


def test_latency_and_throughput_of_the_same_run_are_paired() -> None:
    load = {c: Load(workload="chat", concurrency=c) for c in (1, 4)}
    rows = [
        measurement("ttft", 10, load=load[1]), measurement("output_throughput", 100, load=load[1]),
        measurement("output_throughput", 300, load=load[4]), measurement("ttft", 40, load=load[4]),
        measurement("ttft", 99, load=Load(workload="other", concurrency=4)),
    ]  # fmt: skip
    (line,) = _curves(plots.latency_throughput(rows))
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(100, 10), (300, 40)]


def test_a_precision_can_be_singled_out() -> None:
    extra = [m.model_copy(update={"precision": "q8_0"}) for m in ROWS]
    assert len(_curves(plots.latency_throughput([*ROWS, *extra], precision="fp32"))) == 3


def roof(value: float, **fields: Any) -> Measurement:
    return measurement("roofline", value, engine="memory", load=Load(workload="read 52 MiB", arrival="none"), **fields)


def test_a_figure_above_its_roof_is_flagged_not_drawn_as_true() -> None:
    stream = Load(concurrency=1)
    rows = [measurement(value=900, engine="ollama", load=stream), measurement(value=300, load=stream), roof(640)]
    figure = plots.decode_vs_roofline(rows)
    bars = {patch.get_width(): patch for patch in figure.axes[0].patches}
    assert bars[900].get_hatch() and bars[900].get_facecolor()[:3] == (1, 1, 1)
    assert not bars[300].get_hatch()
    found = texts(figure)
    assert "ABOVE ITS ROOF" in found and "47% of the roof" in found and "read 52 MiB" in found


def test_a_flag_from_the_record_counts_as_above_the_roof() -> None:
    figure = plots.decode_vs_roofline([measurement(value=100, flags=("above-roofline",)), roof(640)])
    assert figure.axes[0].patches[0].get_hatch()


def test_a_roof_measured_on_a_busy_machine_says_that_it_is_higher() -> None:
    figure = plots.decode_vs_roofline([measurement(value=700), roof(640, flags=("machine-busy",))])
    assert "true roof is higher" in texts(figure).replace("\n   ", " ")
    assert "ABOVE" not in texts(figure)


def test_each_precision_has_its_own_panel_and_roof() -> None:
    """A roof of 10,000 for 8-bit weights in cache must not flatten the bars of fp32."""
    rows = [measurement(value=100), measurement(value=90, engine="llama.cpp"), roof(640),
            measurement(value=160, precision="q8_0"), roof(10_000, precision="q8_0")]  # fmt: skip
    figure = plots.decode_vs_roofline(rows)
    assert [bar_widths(figure, panel) for panel in (0, 1)] == [[100, 90], [160]]
    assert figure.axes[0].get_xlim()[1] < 1100 < 10_000 < figure.axes[1].get_xlim()[1]


def test_precisions_of_one_engine_are_told_apart_by_their_lines() -> None:
    rows = [measurement("output_throughput", c * 10, precision=p, load=Load(concurrency=c))
            for p in ("fp32", "q8_0") for c in (1, 4)]  # fmt: skip
    one, two = _curves(plots.lines(rows, "output_throughput"))
    assert one.get_color() == two.get_color() and one.get_linestyle() != two.get_linestyle()


def test_latencies_over_a_wide_range_are_on_a_logarithmic_axis_that_says_so() -> None:
    def figure(slowest: float) -> Figure:
        values = {1: 10.0, 16: slowest}
        return plots.latency_throughput([m for c, ttft in values.items() for m in (
            measurement("ttft", ttft, load=Load(concurrency=c)),
            measurement("output_throughput", 100 * c, load=Load(concurrency=c)))])  # fmt: skip

    assert figure(5000).axes[0].get_yscale() == "log" and "log scale" in texts(figure(5000))
    assert figure(50).axes[0].get_yscale() == "linear" and "log scale" not in texts(figure(50))


def test_a_roof_of_another_precision_or_model_does_not_count() -> None:
    for other in (roof(50, precision="q8_0"), roof(50, model="another")):
        found = texts(plots.decode_vs_roofline([measurement(value=300), other]))
        assert "no roofline for this model and precision" in found and "ABOVE" not in found


def test_several_streams_have_no_roof() -> None:
    """They share one read of the weights, so their sum may well lie above it."""
    with pytest.raises(LabsError, match="several streams"):
        plots.decode_vs_roofline([measurement(value=900, load=Load(concurrency=16)), roof(640)])


def test_of_several_single_streams_the_longest_counts() -> None:
    rows = [measurement(value=v, load=Load(concurrency=1, output_tokens=t)) for v, t in ((150, 2), (300, 64))]
    assert bar_widths(plots.decode_vs_roofline([*rows, roof(640)]), 0) == [300]


def test_repeated_starts_are_pooled_with_their_range() -> None:
    rows = [measurement("startup_time", v, n=1) for v in (1.0, 3.0, 1.5)] + [measurement("memory", 100, n=1)]
    figure = plots.startup_and_memory(rows)
    assert bar_widths(figure, 0) == [1.5]
    assert "n=3" in texts(figure)


def test_an_engine_keeps_its_colour_in_every_figure() -> None:
    def colours(figure: Figure) -> set[Any]:
        return {patch.get_facecolor() for patch in figure.axes[0].patches}

    alone = plots.bars([measurement(engine="vllm")], "decode_throughput")
    among = plots.bars([measurement(engine=e) for e in ("a", "vllm", "z")], "decode_throughput")
    assert colours(alone) <= colours(among)
    assert plots.engine_colour("vLLM + EAGLE-3") == plots.engine_colour("vllm")
    assert plots.engine_colour("never heard of") == plots.engine_colour("never heard of")


def test_known_engines_are_told_apart_in_grey_and_by_the_colour_blind() -> None:
    """Pairwise distance of the luminance-weighted colours; the palette is Okabe and Ito's."""
    from matplotlib.colors import to_rgb

    for one, two in itertools.combinations(style.COLOURS.values(), 2):
        assert sum(abs(a - b) for a, b in zip(to_rgb(one), to_rgb(two), strict=True)) > 0.25, (one, two)


def test_hostile_names_are_text_and_never_a_formula() -> None:
    name = r"<b>$\frac{1}{0$"
    figure = plots.bars([measurement(engine=name, load=Load(workload="$x_$")), measurement()], "decode_throughput")
    assert figure._repr_png_()  # drawing it would raise on a broken formula
    assert name in texts(figure) and "$x_$" in texts(figure)


def test_the_decision_matrix_takes_what_rank_returns() -> None:
    from labs_helpers import bench

    table = bench.decision_table([m for m in ROWS if m.metric != "roofline"], at_concurrency=4)
    ranking = bench.rank(table, {"ttft": 1, "memory": 1})
    found = texts(plots.decision_matrix({"chat": ranking, "batch": {"vllm": 0.5, "sglang": None}}))
    assert "chat" in found and "vLLM" in found and "not measured" in found
    assert f"{ranking[0][1]:.2f}" in found


@pytest.mark.parametrize("scores", [{}, {"chat": {}}])
def test_an_empty_decision_matrix_is_an_error(scores: Any) -> None:
    with pytest.raises(LabsError, match="no engines"):
        plots.decision_matrix(scores)


def test_a_score_outside_0_to_1_is_an_error() -> None:
    with pytest.raises(LabsError, match="scores go from 0 to 1"):
        plots.decision_matrix({"chat": {"vllm": 1.5}})


def test_a_timeline_shows_ttft_tpot_and_e2e_as_the_client_defines_them() -> None:
    found = texts(plots.timeline(a_sample(), engine="vllm"))
    assert "TTFT 200 ms" in found and "E2E 340 ms" in found and "8 events" in found
    assert "TPOT 20.0 ms" in found  # 140 ms for the 7 tokens after the first event's 4
    assert "TPOT" not in texts(plots.timeline(a_sample(completion_tokens=4)))


@pytest.mark.parametrize("fields", [{"events": ()}, {"intended": 11.0}, {"end": 10.1}])
def test_a_timeline_that_cannot_be_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(LabsError):
        plots.timeline(a_sample(**fields))


def test_the_witness_table_has_the_difference_in_percent() -> None:
    table = plots.witness_table([measurement(value=102, witness=100), measurement(value=5)])
    assert list(table["difference %"]) == [2.0]
    with pytest.raises(LabsError, match="no engine"):
        plots.witness_table([measurement()])


def test_a_figure_shows_itself_in_a_notebook() -> None:
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(plots.bars(ROWS, "startup_time"))
    assert data["image/png"].startswith(b"\x89PNG")


def test_figures_leave_no_trace_in_pyplot() -> None:
    import matplotlib.pyplot as plt

    plots.bars(ROWS, "startup_time")
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (0.5321, "0.532"), (17.06, "17.1"), (1040.4, "1,040")])
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert style.number(value) == shown
