"""The drafts' modules: what is saved is loaded again, and training sees what drafting will see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.speculation.eagle3_draft import Eagle3Draft
from labs_helpers.speculation.eagle_draft import EagleDraft
from labs_helpers.speculation.features import TAPS, Answered, Frozen, Prompt, answer
from labs_helpers.speculation.medusa_heads import MedusaHeads
from labs_helpers.speculation.rows import Rows, parts, spans
from labs_helpers.speculation.unroll import unroll

TOKENS = torch.tensor([0, 1, 2, *range(40, 301, 3)])


def scrambled(module: Any, seed: int = 0) -> Any:
    """Every weight random, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.05 if parameter.ndim == 2 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + (parameter.ndim == 1))
    return module.eval()


DRAFTS = {
    "medusa, a matrix each": lambda: MedusaHeads(TOKENS, heads=3, layers=1),
    "medusa, one matrix": lambda: MedusaHeads(TOKENS, heads=4, layers=2, shared=True),
    "eagle": EagleDraft,
    "eagle3": lambda: Eagle3Draft(TOKENS),
}


@pytest.mark.parametrize("kind", DRAFTS)
def test_what_is_saved_is_loaded_again(kind: str, tmp_path: Path) -> None:
    draft = scrambled(DRAFTS[kind]())
    draft.save(tmp_path / "draft")
    again = type(draft).load(tmp_path / "draft")
    kept = draft.state_dict()
    assert kept.keys() == again.state_dict().keys()
    for name, tensor in again.state_dict().items():
        expected = kept[name].to(torch.bfloat16).float() if tensor.is_floating_point() else kept[name]
        assert torch.equal(tensor, expected), name
    assert (tmp_path / "draft" / "model.safetensors").stat().st_mode & 0o044


def test_the_names_on_disk_are_those_engines_read(tmp_path: Path) -> None:
    scrambled(MedusaHeads(TOKENS, heads=2, layers=2, shared=True)).save(tmp_path / "medusa")
    names = set(load_file(tmp_path / "medusa" / "model.safetensors"))
    blocks = {f"blocks.{i}.layers.{j}.{kind}" for i in range(2) for j in range(2) for kind in ("weight", "bias")}
    assert names == blocks | {"lm_heads.0.weight", "token_map"}
    config = json.loads((tmp_path / "medusa" / "config.json").read_text())
    assert config["medusa_fc_bias"] and config["original_lm_head"] and config["truncated_vocab_size"] == len(TOKENS)
    scrambled(Eagle3Draft(TOKENS)).save(tmp_path / "eagle3")
    tensors = load_file(tmp_path / "eagle3" / "model.safetensors")
    assert torch.equal(tensors["d2t"] + torch.arange(len(TOKENS)), TOKENS)
    assert tensors["t2d"].nonzero()[:, 0].tolist() == TOKENS.tolist()
    assert tensors["fc.weight"].shape == (SPEC.hidden, 3 * SPEC.hidden)
    assert tensors["midlayer.self_attn.q_proj.weight"].shape == (SPEC.hidden, 2 * SPEC.hidden)
    config = json.loads((tmp_path / "eagle3" / "config.json").read_text())
    assert config["eagle_aux_hidden_state_layer_ids"] == list(TAPS)
    assert config["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [tap - 1 for tap in TAPS], "SGLang adds one"


def test_a_folder_without_a_draft_or_with_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabsError, match="holds no draft"):
        MedusaHeads.load(tmp_path)
    scrambled(EagleDraft()).save(tmp_path)
    with pytest.raises(LabsError, match="not MedusaModel"):
        MedusaHeads.load(tmp_path)


@pytest.fixture(scope="module")
def found() -> Answered:
    """Two short answers with their features, in fp32."""
    return answer(Frozen(dtype="float32"), [Prompt((1, 70, 71, 200, 5)), Prompt((1, 90, 300, 301, 302, 7, 9))], 14)


def one_by_one(draft: Any, model: Frozen, features: torch.Tensor, ids: list[int], anchor: int, depth: int) -> Any:
    """Drafting as an engine does it, without batches: rows of true features, then the draft's own, one at a time."""
    size, outputs = SPEC.head_dim, []
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []

    def run(feature: torch.Tensor, token: int, position: int) -> torch.Tensor:
        x, residual = draft.enter(model.embedding[token], feature)
        cos, sin = (table[position] for table in model.turns)

        def turned(vector: torch.Tensor) -> torch.Tensor:
            heads = vector.view(-1, size)
            return heads * cos + torch.cat([-heads[:, size // 2 :], heads[:, : size // 2]], -1) * sin

        attention = draft.layer.self_attn
        q = turned(attention.q_proj(x))
        keys.append(turned(attention.k_proj(x)))
        values.append(attention.v_proj(x).view(-1, size))
        k, v = torch.stack(keys, 1), torch.stack(values, 1)  # [KV heads, rows, size]
        k, v = (t.repeat_interleave(SPEC.heads // SPEC.kv_heads, 0) for t in (k, v))
        weights = ((q[:, None] @ k.transpose(1, 2)) / size**0.5).softmax(-1)
        x = residual + attention.o_proj((weights @ v).flatten())
        h = draft.layer.post_attention_layernorm(x)
        mlp = draft.layer.mlp
        return x + mlp.down_proj(functional.silu(mlp.gate_proj(h)) * mlp.up_proj(h))

    for t in range(anchor + 1):
        output = run(features[t], ids[t + 1], t)
    outputs.append(output)
    for step in range(1, depth):
        output = run(output, ids[anchor + 1 + step], anchor + step)
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_training_sees_what_drafting_will_see(kind: str, found: Answered) -> None:
    """Training-time test: every anchor of a padded batch, against drafting from that anchor alone."""
    draft, model, depth = scrambled(DRAFTS[kind]()), Frozen(dtype="float32"), 4
    with torch.inference_mode():
        (rows,), total = parts(found, spans(found), 1)
        assert isinstance(rows, Rows) and total == int(rows.real.sum())
        features = draft.fuse(rows.features) if kind == "eagle3" else rows.features["final"]
        together = torch.stack(unroll(draft, model, rows, features, depth), 2)  # [rows, a, depth, hidden]
        checked = 0
        for row in range(len(rows.ids)):
            for a, anchor in enumerate(rows.anchors[row].tolist()):
                deep = min(depth, int(rows.lengths[row]) - 1 - anchor)
                if rows.real[row, a] and deep > 0:
                    alone = one_by_one(draft, model, features[row], rows.ids[row].tolist(), anchor, deep)
                    torch.testing.assert_close(together[row, a, :deep], alone, atol=2e-4, rtol=2e-4)
                    checked += 1
    assert checked == total
