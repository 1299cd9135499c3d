"""The KV cache in fewer bits: rounding, its scales, and what it does to the course model, on real keys and values.

Sources: scales per token, Dettmers et al. (arXiv 2208.07339), section 2.1; keys per channel and values per token, Liu
et al., "KIVI" (arXiv 2402.02750), section 3; fp8, Micikevicius et al. (arXiv 2209.05433).

Values are rounded and widened again at once ("fake quantization"), so that everything after it is computed as before;
the bytes are counted, not saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    import torch

Scheme = Literal["none", "int8 per tensor", "int8 per token", "int8 per channel", "int4 per token", "fp8"]
SCHEMES: tuple[Scheme, ...] = (
    "none",
    "int8 per tensor",
    "int8 per token",
    "int8 per channel",
    "int4 per token",
    "fp8",
)
_SHARED_AXES = {"tensor": (-3, -2, -1), "token": (-1,), "channel": (-2,)}
"""Axes of [heads, tokens, head_dim] that have one scale in common."""


def round_to(values: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Keys or values [..., heads, tokens, head_dim], rounded to what the scheme can store, in their own type.

    int: symmetric, the largest magnitude that shares a scale becomes 127 (7 for int4). 'per token' has a scale per head
    and token, 'per channel' per head and channel over all tokens given. fp8 is e4m3 without a scale, as an engine uses
    it with a checkpoint that brings none: it saturates at 448.

    Raises:
        LabsError: an unknown scheme.
    """
    import torch

    if scheme == "none":
        return values
    if scheme == "fp8":
        return values.clamp(-448, 448).to(torch.float8_e4m3fn).to(values.dtype)
    if scheme not in SCHEMES:
        raise LabsError(f"there is no scheme {scheme!r}", "schemes: " + ", ".join(SCHEMES))
    bits, _, shared = scheme.removeprefix("int").partition(" per ")
    most = 2 ** (int(bits) - 1) - 1
    scale = values.abs().amax(dim=_SHARED_AXES[shared], keepdim=True).clamp(min=1e-12) / most
    return (values / scale).round().clamp(-most, most) * scale


def bytes_per_value(scheme: Scheme, head_dim: int) -> float:
    """Stored bytes per value; a scale per token and head is one fp32 number for `head_dim` values."""
    bits = {"none": 16, "fp8": 8}.get(scheme) or int(scheme.removeprefix("int").split()[0])
    return bits / 8 + (4 / head_dim if "per token" in scheme else 0)


def relative_error(values: torch.Tensor, scheme: Scheme) -> float:
    """Root mean square of the rounding error over that of the values."""
    error = round_to(values, scheme) - values
    return float(error.square().mean().sqrt() / values.square().mean().sqrt())


@dataclass(frozen=True)
class Effect:
    """What a scheme does to the model's predictions of a text."""

    scheme: str
    key_error: float
    value_error: float
    """Relative errors, means over the layers."""
    loss: float
    """Nats per token."""
    agreement: float
    """Share of the tokens whose first choice is that of the unrounded cache."""
    tokens: int

    @property
    def perplexity(self) -> float:
        from math import exp

        return exp(self.loss)


def keys_and_values(texts: Sequence[Sequence[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [layers, heads, tokens, head_dim] of the course model for each text, as they are cached (keys
    after the rotation of their positions)."""
    import torch

    found = []
    for ids in texts:
        cache, _ = _forward(ids, "none")
        keys = torch.stack([layer.keys[0] for layer in cache.layers])
        values = torch.stack([layer.values[0] for layer in cache.layers])
        found.append((keys, values))
    return found


def effects(
    texts: Sequence[Sequence[int]], schemes: Sequence[Scheme] = SCHEMES, *, only: Literal["keys", "values", ""] = ""
) -> list[Effect]:
    """Error, loss and agreement of each scheme on these texts (token ids), every token given the true ones before it.

    With `only`, just the keys or just the values are rounded; the errors are those of both all the same.
    """
    import torch
    from torch.nn import functional

    plain = [_forward(ids, "none") for ids in texts]
    layers = [(layer.keys[0], layer.values[0]) for cache, _ in plain for layer in cache.layers]
    tokens = sum(map(len, texts))
    found = []
    for scheme in schemes:
        loss, same = 0.0, 0
        for ids, (_, baseline) in zip(texts, plain, strict=True):
            logits = baseline if scheme == "none" else _forward(ids, scheme, only)[1]
            loss += functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item()
            same += int((logits.argmax(-1) == baseline.argmax(-1)).sum())
        found.append(
            Effect(
                scheme=scheme,
                key_error=sum(relative_error(keys, scheme) for keys, _ in layers) / len(layers),
                value_error=sum(relative_error(values, scheme) for _, values in layers) / len(layers),
                loss=loss / (tokens - len(texts)),
                agreement=same / tokens,
                tokens=tokens - len(texts),
            )
        )
    return found


@lru_cache(maxsize=1)
def _model() -> Any:
    from labs_helpers.model.scoring import load_model
    from labs_helpers.model.spec import shipped_dir

    return load_model(shipped_dir())


def _forward(ids: Sequence[int], scheme: Scheme, only: str = "") -> tuple[Any, torch.Tensor]:
    """The cache and the fp32 logits [tokens, vocabulary] of a pass whose attention reads rounded keys and values."""
    import torch
    from transformers import DynamicCache

    class Rounded(DynamicCache):
        def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            keys = key_states if only == "values" else round_to(key_states, scheme)
            values = value_states if only == "keys" else round_to(value_states, scheme)
            return super().update(keys, values, layer_idx, *args, **kwargs)

    cache, threads = Rounded(), torch.get_num_threads()
    torch.set_num_threads(1)  # several, on cores that others use as well, wait for each other at every layer
    try:
        with torch.inference_mode():
            logits = _model()(input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True).logits[0]
    finally:
        torch.set_num_threads(threads)
    return cache, logits.float()
