"""`Lab`: parameters are held to their types, checks never raise, and finish refuses a lab that measured nothing."""

from __future__ import annotations

import json

import pytest

from labs_helpers import lab as module
from labs_helpers import machine
from labs_helpers.errors import LabsError
from labs_helpers.lab import Lab, NotMeasured
from labs_helpers.results import LabResult, Load, Measurement


@pytest.fixture
def lab(tmp_path):
    return Lab("3.3.1", scale="quick", out=str(tmp_path))


def figure(metric, engine, value=1.0, **fields):
    return Measurement(
        metric=metric,
        engine=engine,
        value=value,
        n=3,
        engine_version="1",
        model="m",
        precision="fp32",
        machine="here",
        **fields,
    )


def everything(engine):
    """What the benchmark of lab 3.3.1 records of one engine."""
    yield from (figure(name, engine) for name in ("startup_time", "memory", "ttft", "prefill_throughput"))
    yield figure("decode_throughput", engine, load=Load(concurrency=1))
    yield from (figure("output_throughput", engine, load=Load(concurrency=c)) for c in (1, 4, 16))
    yield figure("completion_tokens", engine, value=100, witness=100)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"scale": "huge"}, "quick, full"),
        ({"profile": "tpu"}, "auto, cpu, spark, cuda"),
        ({"out": ""}, "must be a text"),
        ({"scale": 3}, "must be a text"),
    ],
)
def test_a_bad_parameter_names_the_allowed_ones(parameters, said, tmp_path):
    with pytest.raises(LabsError, match=said):
        Lab("3.3.1", **{"out": str(tmp_path), **parameters})


def test_a_parameter_that_papermill_injects_and_no_lab_has_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_injected_parameters", lambda: ["scale", "sclae"])
    with pytest.raises(LabsError, match="sclae"):
        Lab("3.3.1", out=str(tmp_path))


def test_the_card_names_machine_profile_and_every_engine(lab, capsys, tmp_path):
    Lab("3.3.1", scale="quick", out=str(tmp_path))
    card = capsys.readouterr().out
    assert machine.detect().label in card and "profile    cpu" in card
    for engine in lab.spec.engines:
        assert engine in card


def test_engines_that_cannot_run_are_kept_with_reason_and_remedy(lab):
    with pytest.raises(NotMeasured):
        lab.finish()
    rows = {row.engine: row for row in LabResult.read(lab.result_path).engines}
    assert set(rows) == set(lab.spec.engines)
    assert all(row.reason and row.remedy for row in rows.values() if row.status == "unavailable")
    assert rows["tensorrt-llm"].status == "unavailable"


def test_a_lab_that_measured_nothing_fails_and_its_file_says_so(lab):
    with pytest.raises(NotMeasured, match="did not measure"):
        lab.finish()
    assert not LabResult.read(lab.result_path).measured_everything


def test_two_engines_are_not_enough(lab):
    for engine in ("vllm", "llama.cpp"):
        lab.record(everything(engine))
    with pytest.raises(NotMeasured, match="3 engines"):
        lab.finish()


def test_three_measured_engines_are_a_result(lab):
    for engine in ("vllm", "llama.cpp", "transformers"):
        lab.record(everything(engine))
    lab.finish()
    result = LabResult.read(lab.result_path)
    assert result.measured_everything
    assert {row.engine for row in result.engines if row.status == "measured"} == {"vllm", "llama.cpp", "transformers"}


def test_a_stale_result_never_passes_for_this_run(lab, tmp_path):
    for engine in ("vllm", "llama.cpp", "transformers"):
        lab.record(everything(engine))
    lab.finish()
    Lab("3.3.1", scale="quick", out=str(tmp_path))
    assert not lab.result_path.exists()


def test_a_decode_rate_above_the_roof_is_flagged_and_one_below_is_not(lab):
    lab.record(figure("roofline", "memory", value=100.0))
    lab.record(figure("decode_throughput", "vllm", value=101.0).model_copy(update={"model": "another"}))
    lab.record(figure("decode_throughput", "vllm", value=101.0), figure("decode_throughput", "vllm", value=99.0))
    assert [m.flags for m in lab.measurements("decode_throughput")] == [(), ("above-roofline",), ()]


def test_a_roof_measured_on_a_busy_machine_accuses_nobody(lab):
    lab.record(figure("roofline", "memory", value=100.0, flags=("machine-busy",)))
    lab.record(figure("decode_throughput", "vllm", value=101.0))
    assert lab.measurements("decode_throughput")[0].flags == ()


def test_a_check_prints_and_never_raises(lab, capsys):
    lab.check("tpot", lambda *a: 1 / 0)
    lab.check("tpot", ...)
    lab.check("no-such-exercise", None)
    printed = capsys.readouterr().out
    assert "failed" in printed and "open" in printed and "percentile" in printed
    assert not lab.solved("tpot")


def test_the_scale_can_be_set_where_no_parameter_can(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_SCALE", "quick")
    monkeypatch.setenv("LABS_OUT", str(tmp_path))
    lab = Lab("3.3.1")
    assert lab.pick(quick=1, full=2) == 1 and lab.result_path.parent == tmp_path


def test_an_unknown_engine_names_the_known_ones(lab):
    with pytest.raises(LabsError, match="vllm"), lab.engine("vlm"):
        pass


def test_what_is_written_is_the_schema(lab):
    with pytest.raises(NotMeasured):
        lab.finish()
    raw = json.loads(lab.result_path.read_text())
    assert raw["schema_version"] == 1 and raw["lab"] == "3.3.1" and raw["scale"] == "quick"
