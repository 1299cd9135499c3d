"""The one decoder layer of an EAGLE draft: Llama's, with its parts apart, so that a draft decides what they read."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.speculation.features import rotate


class Attention(nn.Module):
    """Query, key, value and output matrices; `width` is what the first three read."""

    def __init__(self, width: int, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.spec = spec
        self.q_proj = nn.Linear(width, spec.heads * spec.head_dim, bias=False)
        self.k_proj = nn.Linear(width, spec.kv_heads * spec.head_dim, bias=False)
        self.v_proj = nn.Linear(width, spec.kv_heads * spec.head_dim, bias=False)
        self.o_proj = nn.Linear(spec.heads * spec.head_dim, spec.hidden, bias=False)

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated queries and keys, and values, each [rows, its heads, t, head size]; cos, sin [rows, t, head size]."""
        q, k, v = (
            matrix(x).unflatten(-1, (-1, self.spec.head_dim)).transpose(1, 2)
            for matrix in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = cos[:, None], sin[:, None]
        return rotate(q.float(), cos, sin).to(v.dtype), rotate(k.float(), cos, sin).to(v.dtype), v

    def output(self, attended: torch.Tensor) -> torch.Tensor:
        """[rows, heads, t, head size] to [rows, t, hidden]."""
        found: torch.Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return found


class FeedForward(nn.Module):
    """Llama's gated feed-forward network."""

    def __init__(self, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(spec.hidden, spec.feed_forward, bias=False)
        self.up_proj = nn.Linear(spec.hidden, spec.feed_forward, bias=False)
        self.down_proj = nn.Linear(spec.feed_forward, spec.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return found


class Norm(nn.Module):
    """RMSNorm in fp32 with the course model's eps (torch's default differs by type)."""

    def __init__(self, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(spec.hidden))
        self.eps = spec.norm_eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class DraftLayer(nn.Module):
    """Attention and feed-forward network with the norm between; the norm before differs from draft to draft."""

    def __init__(self, width: int, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.self_attn = Attention(width, spec)
        self.mlp = FeedForward(spec)
        self.post_attention_layernorm = Norm(spec)
        for matrix in (self.self_attn.o_proj, self.mlp.down_proj):
            nn.init.zeros_(matrix.weight)

    def finish(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What follows attention: both residual branches. residual [rows, t, hidden], attended as from attention."""
        x = residual + self.self_attn.output(attended)
        found: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return found
