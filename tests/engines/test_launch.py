"""What the engines are started with: options checked, the model checked, loopback only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labs_helpers.engines import install, options
from labs_helpers.engines.base import ModelSpec
from labs_helpers.engines.llamacpp import LlamaCpp, LlamaCppOptions
from labs_helpers.engines.models import require_folder, require_gguf
from labs_helpers.engines.transformers_engine import Transformers
from labs_helpers.engines.vllm import VLLM, VLLMOptions
from labs_helpers.errors import LabsError


@pytest.fixture(autouse=True)
def environments(monkeypatch):
    """As if every engine were installed."""
    monkeypatch.setattr(install, "python", lambda name: Path(f"/envs/{name}/bin/python"))


@pytest.fixture
def folder(tmp_path) -> ModelSpec:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    return ModelSpec("m", str(tmp_path), "fp32")


@pytest.fixture
def gguf(tmp_path) -> ModelSpec:
    (tmp_path / "m.gguf").write_bytes(b"GGUF....")
    return ModelSpec("m", str(tmp_path / "m.gguf"), "fp32")


def argument(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def llama_settings(spec) -> dict:
    return json.loads(spec.argv[-1])


def test_all_engines_compute_with_the_same_number_of_threads(folder, gguf):
    threads = options.default_threads()
    assert threads >= 1
    assert VLLM().launch(folder, 1).env["VLLM_CPU_OMP_THREADS_BIND"] == options.cpu_list(threads)
    assert len(options.cpu_list(threads).split(",")) == threads
    settings = llama_settings(LlamaCpp().launch(gguf, 1))
    assert settings["cpuparams.n_threads"] == settings["cpuparams_batch.n_threads"] == threads
    assert argument(Transformers().launch(folder, 1).argv, "--threads") == str(threads)


def test_one_core_is_left_for_the_client(monkeypatch):
    from labs_helpers.machine import detection

    for cores, threads in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(detection, "usable_cores", lambda cores=cores: cores)
        assert options.default_threads() == threads


def test_all_engines_listen_on_loopback_only(folder, gguf):
    assert argument(VLLM().launch(folder, 8123).argv, "--host") == "127.0.0.1"
    assert argument(VLLM().launch(folder, 8123).argv, "--port") == "8123"
    assert llama_settings(LlamaCpp().launch(gguf, 8123))["hostnames"] == ["127.0.0.1"]


def test_llama_cpp_gets_a_context_for_every_slot(gguf):
    settings = llama_settings(LlamaCpp().launch(gguf, 1, slots=4, max_model_len=1024))
    assert settings["n_parallel"] == 4 and settings["n_ctx"] == 4096


@pytest.mark.parametrize(("precision", "cache"), [("fp32", "f32"), ("bf16", "f16"), ("q8_0", "f16")])
def test_the_kv_cache_is_as_precise_as_the_weights(gguf, precision, cache):
    model = ModelSpec("m", gguf.location, precision)
    assert llama_settings(LlamaCpp().launch(model, 1))["cache_type_k"] == cache
    assert llama_settings(LlamaCpp().launch(model, 1, kv_cache_dtype="q8_0"))["cache_type_v"] == "q8_0"


def test_vllm_gets_its_options_by_its_own_names(folder):
    argv = (
        VLLM()
        .launch(
            folder,
            1,
            prefix_caching=False,
            max_num_seqs=7,
            kv_cache_bytes=2**28,
            block_size=32,
            chunked_prefill=True,
            enforce_eager=False,
            speculative={"method": "ngram"},
            extra_args=["--seed", "3"],
        )
        .argv
    )
    assert "--no-enable-prefix-caching" in argv and "--enable-chunked-prefill" in argv
    assert "--enforce-eager" not in argv
    assert argument(argv, "--max-num-seqs") == "7"
    assert argument(argv, "--kv-cache-memory-bytes") == str(2**28)
    assert argument(argv, "--block-size") == "32"
    assert json.loads(argument(argv, "--speculative-config")) == {"method": "ngram"}
    assert argv[-2:] == ("--seed", "3")


def test_prefix_caching_can_be_turned_off_in_both_that_have_it(folder, gguf):
    assert "--enable-prefix-caching" in VLLM().launch(folder, 1).argv
    assert llama_settings(LlamaCpp().launch(gguf, 1))["cache_prompt"] is True
    assert llama_settings(LlamaCpp().launch(gguf, 1, prefix_caching=False))["cache_prompt"] is False


@pytest.mark.parametrize(("kind", "name"), [(VLLMOptions, "vllm"), (LlamaCppOptions, "llama.cpp")])
def test_an_unknown_option_is_answered_with_the_closest_and_with_all(kind, name):
    with pytest.raises(LabsError) as caught:
        options.read(kind, name, {"prefix_cache": True})
    assert f"{name} has no option 'prefix_cache'; did you mean 'prefix_caching'?" in caught.value.what
    assert all(field in caught.value.remedy for field in kind.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", "2"),
        ("max_num_seqs", 0),
        ("kv_cache_dtype", "int8_per_token_head"),
        ("prefix_caching", "yes"),
        ("max_model_len", 1),
    ],
)
def test_a_value_it_cannot_take_is_named(name, value):
    with pytest.raises(LabsError, match=f"vllm cannot take {name}="):
        options.read(VLLMOptions, "vllm", {name: value})


def test_a_wrong_model_path_is_told_from_an_incomplete_one(tmp_path):
    with pytest.raises(LabsError, match="does not exist"):
        require_folder(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LabsError, match=r"lacks tokenizer\.json, \*\.safetensors"):
        require_folder(str(tmp_path))
    with pytest.raises(LabsError, match="is a file, not a model folder"):
        require_folder(str(tmp_path / "config.json"))
    with pytest.raises(LabsError, match="is a folder, not a GGUF file"):
        require_gguf(str(tmp_path))
    with pytest.raises(LabsError, match="is not a GGUF file"):
        require_gguf(str(tmp_path / "config.json"))
    with pytest.raises(LabsError, match="does not exist"):
        require_gguf(str(tmp_path / "no.gguf"))
