"""Exported drafts are the same functions: what a head says is what it said, in every layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.scoring import load_model
from labs_helpers.model.spec import draft_dir, shipped_dir
from labs_helpers.speculation import export
from labs_helpers.speculation.medusa_heads import MedusaHeads


@pytest.fixture(scope="module")
def heads() -> MedusaHeads:
    return MedusaHeads.load(draft_dir("medusa"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_CACHE", str(tmp_path / "cache"))


def features(n: int = 64) -> torch.Tensor:
    return torch.randn(n, SPEC.hidden, generator=torch.Generator().manual_seed(3)) * 0.3


def order(logits: torch.Tensor, known: torch.Tensor, n: int = 5) -> list[list[int]]:
    """Token ids of the n best, from logits over the draft vocabulary."""
    best: list[list[int]] = known[logits.topk(n).indices].tolist()
    return best


def test_vllm_gets_the_same_choices_over_the_whole_vocabulary(heads: MedusaHeads) -> None:
    folder = export.draft_model_dir("medusa", "fp32")
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert "token_map" not in tensors and "truncated_vocab_size" not in config
    matrix = tensors["lm_heads.0.weight"]
    assert matrix.shape == (SPEC.vocabulary, SPEC.hidden)
    with torch.inference_mode():
        for block, logits in zip(heads.blocks, heads(features()), strict=True):
            whole = block(features()) @ matrix.T
            assert whole.topk(5).indices.tolist() == order(logits, heads.token_map)


def test_medusa_llm_gets_the_same_heads_and_the_same_model(heads: MedusaHeads) -> None:
    folder = export.medusa_llm()
    state = torch.load(folder / "medusa_lm_head.pt")
    with torch.inference_mode():
        for i, logits in enumerate(heads(features())):
            x = features()
            for j in range(heads.layers):
                x = x + torch.nn.functional.silu(x @ state[f"{i}.{j}.linear.weight"].T + state[f"{i}.{j}.linear.bias"])
            whole = x @ state[f"{i}.{heads.layers}.weight"].T
            assert whole.topk(5).indices.tolist() == order(logits, heads.token_map)
        ids = torch.tensor([[1, 70, 71, 200, 5, 2, 300]])
        base, ours = load_model(folder / "base"), load_model(shipped_dir())
        assert base.config.num_key_value_heads == base.config.num_attention_heads, "a key for every query head"
        torch.testing.assert_close(base(ids).logits, ours(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["eagle3", "eagle", "draft"])
def test_the_wide_copy_holds_the_same_numbers(name: str) -> None:
    shipped, wide = draft_dir(name), export.draft_model_dir(name, "fp32")  # type: ignore[arg-type]
    a, b = load_file(shipped / "model.safetensors"), load_file(wide / "model.safetensors")
    assert a.keys() == b.keys()
    for tensor, copy in zip((a[n] for n in a), (b[n] for n in a), strict=True):
        assert torch.equal(tensor.to(copy.dtype), copy)
        assert copy.dtype in (torch.float32, torch.int64, torch.bool)
    assert json.loads((wide / "config.json").read_text())["torch_dtype"] == "float32"
    assert export.draft_model_dir(name) == shipped


def test_an_unknown_draft_or_precision_is_refused() -> None:
    with pytest.raises(LabsError, match="no draft 'eagle2'"):
        export.draft_model_dir("eagle2")
    with pytest.raises(LabsError, match="no 'fp16' form"):
        export.draft_model_dir("eagle3", "fp16")  # type: ignore[arg-type]


def test_the_drafts_together_are_small() -> None:
    sizes = [(draft_dir(name) / "model.safetensors").stat().st_size for name in ("medusa", "eagle3", "eagle", "draft")]
    assert sum(sizes) <= 20e6
