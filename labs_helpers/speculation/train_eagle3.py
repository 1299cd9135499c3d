"""Training of the EAGLE-3 draft: training-time test on the model's own answers, with the model's own probabilities.

Li et al. 2025, arXiv 2503.01840, section 3.2 and figure 6. Every place of an answer is drafted from, several steps
deep: at step s the draft reads its own former output instead of features it cannot have, and sees the keys of true
features up to its anchor, then only those of its own chain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from labs_helpers.model.optimizer import make_optimizers
from labs_helpers.speculation.eagle3_draft import Eagle3Draft
from labs_helpers.speculation.features import Answered, Frozen
from labs_helpers.speculation.fitting import Fit, fit
from labs_helpers.speculation.rows import Rows, batches
from labs_helpers.speculation.train_medusa import draft_index
from labs_helpers.speculation.unroll import pick, unroll

DEPTH = 6
ANCHORS_PER_STEP = 640
STEPS = 1000
MORE_STEPS, MORE_DEPTH, MORE_RATE = 700, 5, 0.8
"""The second part, from the weights of the first: what the model recites takes many passes to learn."""
STEP_WEIGHT = 0.9
"""Weight of each step's loss against the one before."""


def loss(draft: Eagle3Draft, model: Frozen, rows: Rows, depth: int, index: torch.Tensor) -> torch.Tensor:
    """Cross entropy with the model's probabilities over the draft vocabulary; tokens outside it teach nothing."""
    losses = []
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        output = model.embedding[draft.token_map]
        for step, feature in enumerate(unroll(draft, model, rows, draft.fuse(rows.features), depth)):
            logits = draft.logits(feature)
            place = rows.at(step + 1)
            with torch.no_grad():
                target = functional.linear(pick(rows.features["final"], place), output).float().softmax(-1)
                counts = rows.within(step + 2) & (pick(index[rows.ids], rows.at(step + 2)) >= 0)
            each = -(target * logits.float().log_softmax(-1)).sum(-1)
            losses.append(STEP_WEIGHT**step * (each * counts).sum())
    return torch.stack(losses).sum() / rows.total


def start(draft: Eagle3Draft, model: Frozen) -> None:
    """Let norm and output matrix begin as the model's own."""
    with torch.no_grad():
        draft.lm_head.weight.copy_(model.embedding[draft.token_map])
        draft.norm.weight.copy_(model.final_norm)


def train(
    draft: Eagle3Draft,
    data: Answered,
    *,
    steps: int,
    seed: int,
    out: Path,
    recipe: str,
    depth: int = DEPTH,
    peak: float = 1.0,
    **how: Any,
) -> Fit:
    """Train the draft in place; `peak` scales the learning rates, `how` is as for `fit`."""
    model = Frozen()
    index = draft_index(draft.token_map, draft.spec.vocabulary)
    optimizers = make_optimizers(draft, tables=("lm_head",))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak"] *= peak
    return fit(
        "EAGLE-3 draft",
        draft,
        optimizers,
        batches(data, ANCHORS_PER_STEP, seed),
        lambda rows: loss(draft, model, rows, depth, index),
        steps=steps,
        recipe=recipe,
        out=out,
        **how,
    )
