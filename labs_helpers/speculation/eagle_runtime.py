"""EAGLE's decoder layer as it runs: few products, few small operations, nothing computed twice.

The token embedding's share of the first product is the same whenever the token comes up, so it is computed once for the
whole vocabulary and looked up. What the last row alone is asked for leaves attention as one row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from labs_helpers.model.architecture import Architecture
from labs_helpers.speculation.layers import (
    Attention,
    DecoderLayer,
    Norm,
    joint_gate_up,
    joint_qkv,
)
from labs_helpers.speculation.packed import Linear, WeightType

if TYPE_CHECKING:
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft
    from labs_helpers.speculation.eagle_draft import EagleDraft
    from labs_helpers.speculation.target import Output, Target


class EagleLayer:
    """One draft layer over a cache of its own; row t holds the feature of token t with the embedding of token t + 1.

    Args:
        layer: the decoder layer, whose `qkv` is not used.
        table: fp32 [vocabulary, out], each token's share of what `read` gives.
        read: the feature's share of the joint product: [qkv], or [qkv, residual].
        head: from the layer's output to logits over the draft vocabulary, with the norm before it where there is one.
        ids: int64 [draft vocabulary], the target's ids.
        taps: the target's layers whose inputs are the features; () for its last hidden state.
    """

    def __init__(
        self,
        layer: DecoderLayer,
        table: torch.Tensor,
        read: Linear,
        head: Linear,
        ids: torch.Tensor,
        *,
        before: Norm | None = None,
        fuse: Linear | None = None,
        norm: Norm | None = None,
        taps: tuple[int, ...] = (),
    ) -> None:
        self.layer, self.table, self.read, self.head, self.ids = layer, table, read, head, ids
        self.before, self.fuse, self.norm, self.taps = before, fuse, norm, taps
        self.id_list: list[int] = ids.tolist()
        spec = layer.attention.spec
        self.qkv = (spec.heads + 2 * spec.kv_heads) * spec.head_dim
        self._prepare_step()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one step of a chain reads."""
        matrices = (self.read, self.layer.o, self.layer.gate_up, self.layer.down, self.head)
        return sum(matrix.bytes for matrix in matrices)

    def features(self, output: Output) -> torch.Tensor:
        """The target's features of all tokens of a pass, fp32 [n, hidden]."""
        if self.fuse is None:
            return output.hidden
        assert output.taps is not None
        return self.fuse(output.taps)

    def run(
        self,
        features: torch.Tensor,
        embedded: torch.Tensor,
        past: int,
        turns: torch.Tensor,
        mask: torch.Tensor | None = None,
        last_row: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(next features [n, hidden], logits [n, draft vocabulary]) of n rows behind `past` cached ones.

        embedded: rows of `table`, for the tokens that follow. Everything else as in Target.forward.
        """
        joint = self.read.add(features if self.before is None else self.before(features), embedded)
        residual = features if joint.shape[1] == self.qkv else joint[:, self.qkv :]
        attended = self.layer.attention(joint[:, : self.qkv], past, turns, mask, last_row)
        found = self.layer.finish(attended, residual[-1:] if last_row else residual)
        return found, self.head(found if self.norm is None else self.norm(found))

    def _prepare_step(self) -> None:
        """Fixed places for a single row, and every view of them that a step needs: what `step` saves over `run`."""
        attention, spec = self.layer.attention, self.layer.attention.spec
        self._joint = torch.zeros(1, self.table.shape[1])
        heads = self._joint[0, : self.qkv].view(-1, spec.head_dim)
        self._pairs = torch.view_as_complex(heads.view(-1, spec.head_dim // 2, 2))[: attention.turned]
        self._query = heads[: spec.heads].view(1, spec.kv_heads, attention.group, spec.head_dim)
        self._new = heads[spec.heads :]
        self._apart = self._joint[:, self.qkv :] if self._joint.shape[1] > self.qkv else None
        self._embedded = self.table.split(1)
        self._rows = attention.cache.unbind(0)

    def step(
        self, feature: torch.Tensor, token: int, past: int, turn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `run` for one row [1, hidden] that reads the embedding of `token`; turn: complex [1, head size / 2]."""
        layer, attention = self.layer, self.layer.attention
        read = self.read(feature if self.before is None else self.before(feature))
        torch.add(read, self._embedded[token], out=self._joint)
        residual = feature if self._apart is None else self._apart
        self._pairs.mul_(turn)
        self._rows[past].copy_(self._new)
        keys, values = attention.keys.narrow(2, 0, past + 1), attention.values.narrow(2, 0, past + 1)
        attended = functional.scaled_dot_product_attention(self._query, keys, values).view(1, -1)
        found = layer.finish(attended, residual)
        return found, self.head(found if self.norm is None else self.norm(found))


def _layer(tensors: dict[str, torch.Tensor], prefix: str, target: Target, kind: WeightType) -> DecoderLayer:
    """The layer's second half, behind a cache as long as the target's."""
    spec: Architecture = target.spec
    cache = torch.zeros(target.cache.shape[1:])
    after = Norm(tensors[f"{prefix}post_attention_layernorm.weight"], spec.norm_eps)
    return DecoderLayer(
        after,
        after,
        Attention(cache, spec),
        Linear(torch.zeros(1, 1)),
        Linear(tensors[f"{prefix}self_attn.o_proj.weight"], kind=kind),
        Linear(joint_gate_up(tensors, f"{prefix}mlp."), kind=kind),
        Linear(tensors[f"{prefix}mlp.down_proj.weight"], kind=kind),
    )


def eagle_layer(draft: EagleDraft, target: Target, kind: WeightType) -> EagleLayer:
    """EAGLE, the first: fc joins embedding and feature into what attention reads; the head is the target's."""
    tensors = {name: t.detach().float() for name, t in draft.state_dict().items()}
    hidden = target.spec.hidden
    qkv = joint_qkv(tensors, "layers.0.self_attn.", target.spec)
    embedding_half, feature_half = tensors["fc.weight"].split(hidden, 1)
    joint = torch.cat([qkv, torch.eye(hidden)])  # what attention reads, and the residual, which is its input
    return EagleLayer(
        _layer(tensors, "layers.0.", target, kind),
        target.embedding @ (joint @ embedding_half).T,
        Linear(joint @ feature_half, kind=kind),
        Linear(target.head_weight, kind=kind),
        torch.arange(target.spec.vocabulary),
    )


def eagle3_layer(draft: Eagle3Draft, target: Target, taps: tuple[int, ...], kind: WeightType) -> EagleLayer:
    """EAGLE-3: fused features of three layers, normed beside the normed embedding, and a small draft vocabulary."""
    tensors = {name: t.detach() for name, t in draft.state_dict().items()}
    floats = {name: t.float() for name, t in tensors.items() if t.is_floating_point()}
    spec = target.spec
    qkv = joint_qkv(floats, "midlayer.self_attn.", spec)
    embedding_half, feature_half = qkv.split(spec.hidden, 1)
    embedded = functional.rms_norm(
        target.embedding, (spec.hidden,), floats["midlayer.input_layernorm.weight"], spec.norm_eps
    )
    return EagleLayer(
        _layer(floats, "midlayer.", target, kind),
        embedded @ embedding_half.T,
        Linear(feature_half, kind=kind),
        Linear(floats["lm_head.weight"], kind=kind),
        tensors["d2t"] + torch.arange(len(tensors["d2t"])),
        before=Norm(floats["midlayer.hidden_norm.weight"], spec.norm_eps),
        fuse=Linear(floats["fc.weight"], kind=kind),
        norm=Norm(floats["norm.weight"], spec.norm_eps),
        taps=taps,
    )
