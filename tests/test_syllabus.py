"""The table of contents and the requirements a lab is held to."""

from __future__ import annotations

import pytest

from labs_helpers import syllabus
from labs_helpers.errors import LabsError
from labs_helpers.results import LabResult, Load, Measurement
from labs_helpers.syllabus.requirements import (
    LOOP,
    acceptance_agrees,
    all_valid,
    concurrencies_measured,
    engines_measured,
    figures_within,
    methods_measured,
    none_failed,
    prediction_holds,
    ratio_at_most,
    same_tokens,
    witnessed,
)


def figure(metric="ttft", engine="vllm", value=1.0, **fields):
    return Measurement(metric=metric, engine=engine, value=value, n=1, engine_version="1", machine="m", **fields)


def reference(metric="ttft", engine="vllm"):
    return Measurement(metric=metric, engine=engine, value=1.0, source="reference", cited_from="a paper")


def result(*rows):
    return LabResult(lab="3.3.1", measurements=list(rows))


def test_seven_labs_in_order():
    assert [entry.id for entry in syllabus.CONTENTS] == [f"3.3.{i}" for i in range(1, 8)]


@pytest.mark.parametrize("name", ["3.3.1", "1", "engine-benchmark", "lab_3_3_1", "lab-3.3.1-engine-benchmark.ipynb"])
def test_a_lab_is_found_by_every_name_it_goes_by(name):
    assert syllabus.find(name).id == "3.3.1"


@pytest.mark.parametrize("name", ["3.3.8", "3.3.11", "0", "", "engine-benchmrk"])
def test_an_unknown_lab_names_those_there_are(name):
    with pytest.raises(LabsError, match=r"3\.3\.1"):
        syllabus.find(name)


def test_a_lab_that_is_not_built_says_so():
    missing = syllabus.Entry("3.3.9", "nothing", "")
    with pytest.raises(LabsError, match="not part of this release"):
        missing.spec()


def test_references_do_not_count_as_measured():
    rule = engines_measured("ttft", 2)
    assert not rule(result(figure(engine="vllm"), reference(engine="llama.cpp"))).met
    assert rule(result(figure(engine="vllm"), figure(engine="llama.cpp"))).met


def test_one_engine_measured_twice_is_one_engine():
    assert not engines_measured("ttft", 2)(result(figure(), figure())).met


def test_every_concurrency_is_needed_of_each_engine():
    rule = concurrencies_measured("ttft", (1, 4), 1)
    split = (figure(engine="a", load=Load(concurrency=1)), figure(engine="b", load=Load(concurrency=4)))
    assert not rule(result(*split)).met
    assert rule(result(*split, figure(engine="a", load=Load(concurrency=4)))).met


def test_a_counter_that_disagrees_fails_and_no_counter_is_no_agreement():
    rule = witnessed("completion_tokens", 0.02, 1)
    assert rule(result(figure("completion_tokens", value=100, witness=101))).met
    assert not rule(result(figure("completion_tokens", value=100, witness=110))).met
    assert not rule(result(figure("completion_tokens", value=100))).met


def test_a_prediction_must_have_been_made_and_hold_for_the_worst_request():
    rule = prediction_holds(1, 2)
    right = [figure("cache_prediction_error", engine, 1.0) for engine in ("sglang", "vllm")]
    assert rule(result(*right)).met
    assert not rule(result(right[0])).met
    assert not rule(result(*right, figure("cache_prediction_error", "vllm", 1.5))).met
    assert not rule(result()).met


def test_a_ratio_holds_at_every_length_that_counts():
    rule = ratio_at_most("ttft", "sglang", of="warm", to="cold", most=0.5, prompt_tokens=1000)

    def taken(workload, tokens, value, streams=1):
        load = Load(workload=workload, prompt_tokens=tokens, concurrency=streams)
        return figure("ttft", "sglang", value, load=load)

    long = (taken("cold", 2000, 100.0), taken("warm", 2000, 40.0))
    assert rule(result(*long, taken("cold", 100, 10.0), taken("warm", 100, 9.0))).met
    assert not rule(result(*long, taken("cold", 1500, 10.0), taken("warm", 1500, 9.0))).met
    assert not rule(result(taken("warm", 2000, 40.0), taken("cold", 1500, 100.0))).met
    assert not rule(result(taken("cold", 2000, 100.0, 4), taken("warm", 2000, 40.0, 4))).met
    assert not rule(result(taken("cold", 100, 100.0), taken("warm", 100, 40.0))).met


def test_all_outputs_of_every_engine_must_be_valid_and_enough():
    rule = all_valid(("sglang", "vllm"), "json schema", 50)

    def rate(engine, value, n, workload="json schema"):
        return Measurement(
            metric="valid_rate", engine=engine, value=value, n=n, engine_version="1", machine="m",
            load=Load(workload=workload),
        )  # fmt: skip

    assert rule(result(rate("sglang", 1.0, 50), rate("vllm", 1.0, 50), rate("vllm", 0.2, 50, "json free"))).met
    assert not rule(result(rate("sglang", 1.0, 50), rate("vllm", 0.98, 50))).met
    assert not rule(result(rate("sglang", 1.0, 50), rate("vllm", 1.0, 49))).met
    assert not rule(result(rate("sglang", 1.0, 50))).met


def drafted(metric, method, value=2.0, engine="vllm", workload="served", streams=1):
    load = Load(workload=workload, concurrency=streams)
    return figure(metric, engine, value, method=method, load=load)


def test_every_way_to_draft_is_needed_at_every_batch_and_on_every_text():
    rule = methods_measured("speedup", "vllm", ("medusa",), (1, 8))
    both = [drafted("speedup", "medusa", streams=streams) for streams in (1, 8)]
    assert rule(result(*both)).met
    assert not rule(result(both[0])).met
    assert not rule(result(both[0], drafted("speedup", "eagle3", streams=8))).met
    assert not rule(result(*(m.model_copy(update={"engine": "sglang"}) for m in both))).met
    kinds = methods_measured("speedup", LOOP, ("medusa",), workloads=("seen-like", "off-domain"))
    seen, off = (drafted("speedup", "medusa", engine=LOOP, workload=w) for w in ("seen-like", "off-domain"))
    assert kinds(result(seen, off)).met
    assert not kinds(result(seen)).met


def test_one_output_that_differs_is_not_the_same():
    rule = same_tokens("vllm", ("medusa", "eagle3"))
    medusa, eagle = (drafted("token_agreement", method, 1.0) for method in ("medusa", "eagle3"))
    assert rule(result(medusa, eagle)).met
    assert not rule(result(medusa)).met, "what was not compared is not the same"
    assert not rule(result(medusa, eagle, drafted("token_agreement", "eagle3", 0.96))).met
    assert not rule(result(medusa, eagle.model_copy(update={"engine": LOOP}))).met


def test_acceptance_is_compared_on_the_same_prompts_only():
    rule = acceptance_agrees("vllm", "eagle3", 0.05)
    ours = drafted("acceptance_length", "eagle3", 4.00, LOOP)
    assert rule(result(ours, drafted("acceptance_length", "eagle3", 4.04))).met
    assert not rule(result(ours, drafted("acceptance_length", "eagle3", 3.90))).met
    assert not rule(result(ours)).met
    assert not rule(result(ours, drafted("acceptance_length", "medusa", 4.0))).met
    assert not rule(result(ours, drafted("acceptance_length", "eagle3", 4.0, workload="others"))).met


def test_a_load_that_partly_failed_fails_the_lab():
    assert none_failed()(result(figure())).met
    assert not none_failed()(result(figure(flags=("1-of-16-failed",)))).met


def test_an_empty_result_meets_nothing():
    entry = syllabus.find("3.3.1")
    met = [requirement(result()).name for requirement in entry.spec().requirements if requirement(result()).met]
    assert met == ["no request failed"]


def test_every_figure_that_counts_lies_within_its_limits():
    rule = figures_within("speedup", least=1.5, workload="mixed")

    def row(value, workload="mixed", streams=16, metric="speedup"):
        return figure(metric, value=value, load=Load(workload=workload, concurrency=streams))

    assert rule(result(row(1.6), row(0.3, "other"))).met
    assert not rule(result(row(1.4))).met
    assert not rule(result(row(1.6), row(1.4))).met
    assert not rule(result(row(1.6, "other"))).met, "nothing was measured under this workload"
    at_16 = figures_within("throughput_gain", least=4, concurrency=16)
    assert at_16(result(row(5, metric="throughput_gain"), row(1, streams=4, metric="throughput_gain"))).met
    assert not at_16(result(row(9, streams=64, metric="throughput_gain"))).met
    between = figures_within("kv_cache_usage", least=0, most=1)
    assert between(result(figure("kv_cache_usage", value=0.97))).met
    assert not between(result(figure("kv_cache_usage", value=1.2))).met
