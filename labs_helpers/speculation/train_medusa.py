"""Training of Medusa's heads (Medusa-1: the model stays frozen) on its own answers, from kept features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from labs_helpers.speculation.features import Answered
from labs_helpers.speculation.fitting import Batch, Fit, fit
from labs_helpers.speculation.medusa_heads import MedusaHeads

HEADS, LAYERS = 6, 2
POSITIONS_PER_STEP = 1024
STEPS = 1600
OUTPUT_LR, BLOCK_LR = 4e-3, 4e-3
PAST_THE_END_WEIGHT, PAST_THE_END = 0.3, 16
"""What tokens past an answer's end count, and how many of them."""


class Positions(NamedTuple):
    """Places in answers that a head may learn from.

    features: [n, hidden] after the final norm; labels: int64 [n, heads], draft index of the token to predict, -100
    where there is none; weights: float32 [n], lower past an answer's end.
    """

    features: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


def draft_index(token_map: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """int64 [vocabulary]: a token's place in the draft vocabulary, -100 where it has none."""
    return torch.full((vocabulary,), -100).index_copy(0, token_map, torch.arange(len(token_map)))


def answer_weights(found: Answered) -> torch.Tensor:
    """float32 [n], what predicting FROM a position counts: 1 in answers, less a little past their end, 0 elsewhere."""
    weights = torch.zeros(len(found.ids))
    for span, prompt in zip(found.sequences(), found.prompts.tolist(), strict=True):
        start = span.start + prompt - 1
        weights[start : span.stop - 2] = 1.0
        ends = (found.ids[start + 1 : span.stop] == 2).nonzero()
        if len(ends):
            end = start + 1 + int(ends[0])
            weights[end : span.stop - 2] = 0.0
            weights[end : min(end + PAST_THE_END, span.stop - 2)] = PAST_THE_END_WEIGHT
    return weights


def positions(found: Answered, token_map: torch.Tensor, heads: int, vocabulary: int) -> Positions:
    """Every position of the answers, with what the heads should say there."""
    weights = answer_weights(found)
    index = draft_index(token_map, vocabulary)[found.ids]
    ends = torch.repeat_interleave(found.lengths.cumsum(0), found.lengths)
    at = weights.nonzero()[:, 0]
    labels = torch.full((len(at), heads), -100)
    for head in range(heads):
        target = at + 2 + head
        there = target < ends[at]
        labels[there, head] = index[target[there]]
    return Positions(found.features["final"][at], labels, weights[at])


def batches(data: Positions, size: int, seed: int, workers: int = 2) -> Iterator[Callable[[], Batch]]:
    """Endless passes over the positions in a new order each, in parts for the workers."""
    epoch = 0
    while True:
        order = torch.randperm(len(data.weights), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for start in range(0, len(order) - size + 1, size):
            yield partial(_parts, data, order[start : start + size], workers)
        epoch += 1


def _parts(data: Positions, at: torch.Tensor, workers: int) -> Batch:
    total = float(data.weights[at].sum())
    return [(Positions(*(tensor[part] for tensor in data)), total) for part in at.chunk(workers)], len(at)


def loss(heads: MedusaHeads, part: tuple[Positions, float]) -> torch.Tensor:
    """Cross entropy, summed over heads and positions by weight, over the batch's weight."""
    data, total = part
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        logits = heads(data.features)
    losses = [
        functional.cross_entropy(head.float(), data.labels[:, i], ignore_index=-100, reduction="none")
        for i, head in enumerate(logits)
    ]
    return (torch.stack(losses).sum(0) * data.weights).sum() / total


def optimizers(heads: MedusaHeads) -> list[Any]:
    """AdamW: the blocks are shallow, and Muon's products would cost as much as the step itself."""
    output = [p for n, p in heads.named_parameters() if "lm_head" in n]
    blocks = [p for n, p in heads.named_parameters() if "lm_head" not in n]
    found = [
        torch.optim.AdamW(group, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        for group, lr in ((blocks, BLOCK_LR), (output, OUTPUT_LR))
    ]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


def train(heads: MedusaHeads, data: Positions, *, steps: int, seed: int, out: Path, recipe: str, **how: Any) -> Fit:
    """Train the heads in place; `how` as for `fit`."""
    return fit(
        "Medusa heads",
        heads,
        optimizers(heads),
        batches(data, POSITIONS_PER_STEP, seed),
        lambda part: loss(heads, part),
        steps=steps,
        recipe=recipe,
        out=out,
        **how,
    )
