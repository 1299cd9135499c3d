"""The course model's architecture, name and places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
"""The folder of shipped weights: `course` and, beside it, its drafts."""


@dataclass(frozen=True)
class Architecture:
    """A Llama: deep and thin, so that a draft layer is a small part of a step, as it is in large models."""

    name: str = "labs-course-model"
    vocabulary: int = 2048
    hidden: int = 384
    layers: int = 10
    feed_forward: int = 768
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 64
    positions: int = 4096
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def parameters(self) -> int:
        """Trained numbers; input and output embeddings are one tensor."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = attention + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * per_layer + self.hidden

    @property
    def parameters_read_per_token(self) -> int:
        """Weights that one decoding step reads: all of them, for the tied embedding is read whole as output head."""
        return self.parameters

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes that one token adds to the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


SPEC = Architecture()
