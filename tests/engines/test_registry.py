"""Every engine has a row, whether it can run here or not, and a wrong name is answered with the right one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from labs_helpers.engines import install, registry
from labs_helpers.errors import LabsError

HERE = SimpleNamespace(arch="x86_64", gpu=None)
WITH_GPU = SimpleNamespace(arch="aarch64", gpu=SimpleNamespace(name="NVIDIA GB10"))
NAMES = {"transformers", "llama.cpp", "vllm", "sglang", "tensorrt-llm", "ollama"}


def test_every_engine_of_the_course_has_a_row():
    rows = registry.table(HERE)
    assert {row.engine for row in rows} == NAMES
    for row in rows:
        assert row.status in ("available", "unavailable")
        assert bool(row.reason) == (row.status == "unavailable")
        assert bool(row.remedy) == (row.status == "unavailable")


def test_the_baseline_needs_no_installation():
    row = next(row for row in registry.table(HERE) if row.engine == "transformers")
    assert row.status == "available" and row.version


@pytest.mark.parametrize(("typo", "meant"), [("vlm", "vllm"), ("llamacpp", "llama.cpp"), ("TensorRT", "tensorrt-llm")])
def test_a_wrong_name_is_answered_with_the_closest_and_with_all(typo, meant):
    with pytest.raises(LabsError) as caught:
        registry.get(typo)
    assert f"did you mean '{meant}'?" in caught.value.what
    assert all(name in caught.value.remedy for name in NAMES)


def test_a_name_like_nothing_gets_no_guess():
    with pytest.raises(LabsError, match="there is no engine 'xyzzy'") as caught:
        registry.get("xyzzy")
    assert "did you mean" not in caught.value.what


@pytest.mark.parametrize("machine", [HERE, WITH_GPU])
def test_what_cannot_run_yet_says_why_and_starts_nothing(machine):
    name = "tensorrt-llm"
    engine = registry.get(name)
    found = engine.availability(machine)
    assert not found.ok and found.reason and found.remedy
    with pytest.raises(LabsError, match="cannot run here"):
        engine.launch(None, 1)
    with pytest.raises(LabsError, match="cannot be installed here"):
        install.install(name, print)


def test_an_engine_that_is_not_installed_names_the_command():
    found = registry.get("vllm").availability(HERE)
    assert not found.ok
    assert "./labs engines install vllm" in found.remedy
    with pytest.raises(LabsError, match="vllm is not installed"):
        registry.get("vllm").version()


def test_a_machine_without_packages_is_said_to_have_none():
    found = registry.get("llama.cpp").availability(SimpleNamespace(arch="riscv64", gpu=None))
    assert not found.ok and "riscv64" in found.reason
