"""Llama's decoder layer over a static cache: for the target, for a draft model and for EAGLE's one layer."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from labs_helpers.model.architecture import Architecture
from labs_helpers.speculation.packed import Linear, WeightType


class Norm:
    """RMSNorm of fp32 [rows, width]: x / sqrt(mean(x²) + eps) * weight.

    Written as x / hypot(|x|, sqrt(width * eps)) * (weight * sqrt(width)), which is the same in four small operations
    where torch's own takes eight.
    """

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        width = len(weight)
        self.scale = weight.detach().float() * math.sqrt(width)
        self.floor = torch.tensor(math.sqrt(width * eps))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.div(x, torch.hypot(length, self.floor)).mul_(self.scale)


class Rotation:
    """Rotary positions as complex numbers: turns [positions, 1, head size / 2].

    A head's values stand in pairs (i, i + half) in Llama's weights; `interleave` puts each pair side by side, so that
    one complex product turns all heads. Keys and queries are laid out alike, so their products are Llama's.
    """

    def __init__(self, positions: int, spec: Architecture) -> None:
        half = spec.head_dim // 2
        rates = spec.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(positions, dtype=torch.float64)[:, None, None] * rates
        self.turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def interleave(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The rows of a query or key matrix [heads * size, in] with each rotated pair side by side."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


class Attention:
    """Grouped-query attention behind a static cache [capacity, 2 * kv_heads, head size]: keys, then values.

    Query heads that share a key-value head stand as rows of one product: row n * group + g is head g of token n.
    """

    def __init__(self, cache: torch.Tensor, spec: Architecture) -> None:
        self.spec, self.cache, self.group = spec, cache, spec.heads // spec.kv_heads
        self.keys = cache[:, : spec.kv_heads].transpose(0, 1)[None]
        self.values = cache[:, spec.kv_heads :].transpose(0, 1)[None]
        self.turned = spec.heads + spec.kv_heads

    def __call__(
        self, qkv: torch.Tensor, past: int, turns: torch.Tensor, mask: torch.Tensor | None, last_row: bool = False
    ) -> torch.Tensor:
        """[n, hidden] from the joint projection [n, (heads + 2 kv_heads) * size], which is turned in place.

        mask as in Target.forward. last_row: the last token's output only, [1, hidden].
        """
        spec, n = self.spec, len(qkv)
        heads = qkv.view(n, -1, spec.head_dim)
        torch.view_as_complex(heads.view(n, -1, spec.head_dim // 2, 2))[:, : self.turned].mul_(turns)
        self.cache[past : past + n] = heads[:, spec.heads :]
        keys, values = self.keys[:, :, : past + n], self.values[:, :, : past + n]
        if last_row and n > 1:
            heads, n, causal = heads[-1:], 1, False
        else:
            causal = mask is None and n > 1
        if causal:
            q = heads[:, : spec.heads].transpose(0, 1)[None]
            found = functional.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=True)
            return found[0].transpose(0, 1).reshape(n, -1)
        q = heads[:, : spec.heads].view(n, spec.kv_heads, self.group, spec.head_dim).transpose(0, 1)
        q = q.reshape(1, spec.kv_heads, n * self.group, spec.head_dim)
        found = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return found.view(spec.kv_heads, n, self.group * spec.head_dim).transpose(0, 1).reshape(n, -1)


class DecoderLayer:
    """One layer: norms, attention and feed-forward network with joint matrices."""

    def __init__(
        self, before: Norm, between: Norm, attention: Attention, qkv: Linear, o: Linear, gate_up: Linear, down: Linear
    ) -> None:
        self.before, self.between, self.attention = before, between, attention
        self.qkv, self.o, self.gate_up, self.down = qkv, o, gate_up, down
        self.width = attention.spec.feed_forward

    @classmethod
    def read(
        cls, tensors: dict[str, torch.Tensor], prefix: str, cache: torch.Tensor, spec: Architecture, kind: WeightType
    ) -> DecoderLayer:
        """From the tensors of a Llama whose names begin with `prefix`."""
        return cls(
            Norm(tensors[f"{prefix}input_layernorm.weight"], spec.norm_eps),
            Norm(tensors[f"{prefix}post_attention_layernorm.weight"], spec.norm_eps),
            Attention(cache, spec),
            Linear(joint_qkv(tensors, f"{prefix}self_attn.", spec), kind=kind),
            Linear(tensors[f"{prefix}self_attn.o_proj.weight"], kind=kind),
            Linear(joint_gate_up(tensors, f"{prefix}mlp."), kind=kind),
            Linear(tensors[f"{prefix}mlp.down_proj.weight"], kind=kind),
        )

    @property
    def bytes(self) -> int:
        """Of its matrices."""
        return self.qkv.bytes + self.o.bytes + self.gate_up.bytes + self.down.bytes

    def __call__(
        self, x: torch.Tensor, past: int, turns: torch.Tensor, mask: torch.Tensor | None, last_row: bool = False
    ) -> torch.Tensor:
        attended = self.attention(self.qkv(self.before(x)), past, turns, mask, last_row)
        return self.finish(attended, x[-1:] if last_row else x)

    def finish(self, attended: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """What follows attention: both residual branches, [n, hidden]."""
        x = self.o.add(attended, residual)
        both = self.gate_up(self.between(x))
        gated = functional.silu(both[:, : self.width]).mul_(both[:, self.width :])
        return self.down.add(gated, x)


def joint_qkv(tensors: dict[str, torch.Tensor], prefix: str, spec: Architecture) -> torch.Tensor:
    """[(heads + 2 kv_heads) * size, in]: queries and keys interleaved for `Rotation`, then values."""
    q, k, v = (tensors[f"{prefix}{name}_proj.weight"] for name in "qkv")
    return torch.cat([interleave(q, spec.head_dim), interleave(k, spec.head_dim), v])


def joint_gate_up(tensors: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    """[2 * feed_forward, hidden]: gates, then what they gate."""
    return torch.cat([tensors[f"{prefix}gate_proj.weight"], tensors[f"{prefix}up_proj.weight"]])
