"""The GGUF holds the same numbers and the same vocabulary as the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.gguf import PRECISIONS, gguf_name, rotary_from_gguf, rotary_to_gguf, write_gguf
from labs_helpers.model.spec import gguf_path, made_in_cache, shipped_dir
from labs_helpers.model.tokenizer import fast_tokenizer

TOLERANCE = {"f32": 0.0, "bf16": 0.0, "f16": 1e-3, "q8_0": 1e-2}
"""Largest error relative to the largest weight of a tensor. The shipped weights are bf16, so bf16 is exact."""


@given(heads=st.integers(1, 4), half=st.integers(1, 8), columns=st.integers(1, 5))
def test_rotary_order_is_undone(heads: int, half: int, columns: int) -> None:
    weight = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(heads * 2 * half, columns)
    moved = rotary_to_gguf(weight, heads)
    assert np.array_equal(rotary_from_gguf(moved, heads), weight)
    first = moved[: 2 * half]  # within a head: neighbours are what was half a head apart
    assert np.array_equal(first[0::2], weight[:half]) and np.array_equal(first[1::2], weight[half : 2 * half])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensors_are_the_shipped_ones(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(shipped_dir(), path, precision)
    stored = {t.name: t for t in GGUFReader(path).tensors}
    shipped = load_file(shipped_dir() / "model.safetensors")
    assert set(stored) == {gguf_name(n) for n in shipped}
    for name, tensor in shipped.items():
        expected = tensor.float().numpy()
        there = stored[gguf_name(name)]
        values = dequantize(there.data, there.tensor_type).reshape(expected.shape)
        if "q_proj" in name or "k_proj" in name:
            values = rotary_from_gguf(values, SPEC.heads if "q_proj" in name else SPEC.kv_heads)
        assert np.abs(values - expected).max() <= TOLERANCE[precision] * np.abs(expected).max(), name


def test_the_vocabulary_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(shipped_dir(), path, "f16")
    field = GGUFReader(path).fields["tokenizer.ggml.tokens"]
    tokens = [bytes(field.parts[i]).decode() for i in field.data]
    tokenizer = fast_tokenizer(shipped_dir())
    assert tokens == [tokenizer.id_to_token(i) for i in range(SPEC.vocabulary)]


def test_the_cache_is_used_and_an_unknown_precision_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_CACHE", str(tmp_path))
    first = gguf_path("q8_0")
    written = first.stat().st_mtime_ns
    assert gguf_path("q8_0") == first and first.stat().st_mtime_ns == written
    assert [p.name for p in first.parent.iterdir()] == [first.name]  # no leftovers of the making
    with pytest.raises(LabsError, match="q2_k"):
        gguf_path("q2_k")  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("LABS_CACHE", str(blocker))
    with pytest.raises(LabsError, match="cannot write"):
        gguf_path("q8_0")


def test_what_is_made_in_the_cache_can_be_read_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grading runs engines as another user, and safetensors writes for the owner only."""
    monkeypatch.setenv("LABS_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        (folder / "inner").mkdir(parents=True, mode=0o700)
        (folder / "inner" / "weights").touch(mode=0o600)

    made = made_in_cache("draft", make)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (made, *made.rglob("*"))}
    assert modes == {"draft": 0o755, "inner": 0o755, "weights": 0o644}
