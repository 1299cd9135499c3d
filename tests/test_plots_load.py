"""The figures of lab 3.3.3: the knee, and the engine while a load runs."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from labs_helpers import plots
from labs_helpers.bench.live import Moment
from labs_helpers.errors import LabsError
from labs_helpers.results import Load, Spread
from tests.synthetic import MACHINE, measurement


def texts(figure):
    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


def test_a_rate_at_which_a_third_is_late_is_no_knee():
    found = texts(plots.knee([goodput(10, 9.5), goodput(40, 26.0)], "TTFT at most 300 ms"))
    assert "knee: 9.5 req/s in time" in found
    assert "knee:" not in texts(plots.knee([goodput(40, 26.0)], "TTFT at most 300 ms"))


def goodput(rate, value, **fields):
    spread = Spread(low=0.9 * value, high=1.1 * value, kind="bootstrap95")
    load = Load(workload="chats", arrival="open", request_rate=rate)
    return measurement("goodput", engine="vllm", value=value, spread=spread, n=40, load=load, **fields)


def test_the_knee_is_named_with_its_rate_the_limits_and_the_sample_counts():
    rows = [goodput(10, 9.5), goodput(30, 12.0), goodput(20, 18.5)]
    found = texts(plots.knee(rows, "TTFT at most 300 ms"))
    assert "knee: 18.5 req/s in time\nof 20.0 offered" in found
    assert "in time: TTFT at most 300 ms" in found and MACHINE in found and "n=40, 40, 40" in found
    assert "client-bound" not in found


def test_a_probe_whose_client_was_the_limit_is_marked():
    figure = plots.knee([goodput(10, 9.5), goodput(20, 18.0, flags=("client-bound",))], "E2E at most 1 s")
    assert "! client-bound" in texts(figure)
    (mark,) = [line for line in figure.axes[0].lines if line.get_label() == "! client-bound"]
    assert list(mark.get_xdata()) == [20]


def test_a_curve_says_when_the_client_was_the_limit():
    load = Load(workload="chats", concurrency=4)
    row = measurement("output_throughput", engine="vllm", load=load, flags=("client-bound",))
    assert "! client-bound" in texts(plots.lines([row], "output_throughput"))
    assert "client-bound" in texts(plots.bars([row], "output_throughput"))


def test_goodput_of_a_closed_loop_has_no_offered_rate():
    with pytest.raises(LabsError, match="no goodput of an open loop"):
        plots.knee([measurement("goodput", engine="vllm", load=Load(concurrency=4))], "")


MOMENTS = [
    Moment(0.0, 0, 0, 0.0, 0),
    Moment(0.1, 12, 4, 0.9, 0),
    Moment(0.2, 10, 6, 1.0, 0),
    Moment(0.3, 12, 4, 0.8, 2),
    Moment(0.4, 0, 0, 0.0, 2),
]


def test_the_live_view_draws_what_was_said_and_marks_where_preemptions_were_counted():
    figure = plots.live(MOMENTS, "vllm 1.0 · m bf16")
    above, below = figure.axes
    running = above.lines[0]
    assert list(running.get_ydata()) == [0, 12, 10, 12, 0]
    (marks,) = [line for line in below.lines if "preempted" in str(line.get_label())]
    assert list(marks.get_xdata()) == [0.3]
    found = texts(figure)
    assert "vllm 1.0 · m bf16: 5 looks" in found and "2 preemptions" in found


def test_without_preemptions_there_is_no_mark():
    figure = plots.live([Moment(m.at, m.running, m.waiting, m.kv_usage, 0) for m in MOMENTS], "x")
    assert not any("preempted" in str(line.get_label()) for line in figure.axes[1].lines)


def test_one_look_is_no_view():
    with pytest.raises(LabsError, match="1 looks"):
        plots.live(MOMENTS[:1], "x")
