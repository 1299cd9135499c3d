"""Training of the draft model: a small Llama of the same tokenizer that learns the model's probabilities.

Leviathan et al. 2023, arXiv 2211.17192, section 3.5: what counts is how much its distribution overlaps the model's; so
it is trained on the model's own answers towards the model's own probabilities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from labs_helpers.model.architecture import Architecture
from labs_helpers.model.initial import new_model
from labs_helpers.model.optimizer import make_optimizers
from labs_helpers.speculation.features import Answered, Frozen
from labs_helpers.speculation.fitting import Fit, fit
from labs_helpers.speculation.rows import Rows, batches
from labs_helpers.speculation.unroll import pick

DRAFT = Architecture(name="labs-draft-model", hidden=256, layers=2, feed_forward=640, heads=4, kv_heads=2, head_dim=64)
"""Shallow: each drafted token costs a pass through its layers, one after the other."""
ANCHORS_PER_STEP = 1536
STEPS = 700


def new_draft(seed: int) -> Any:
    """The untrained draft, with the same copying circuit put in as the course model had."""
    return new_model(seed, DRAFT)


def loss(draft: Any, model: Frozen, rows: Rows) -> torch.Tensor:
    """Cross entropy with the model's probabilities at every place of the answers."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        hidden = draft.model(input_ids=rows.ids, use_cache=False).last_hidden_state
        said = draft.lm_head(pick(hidden, rows.anchors)).float().log_softmax(-1)
        with torch.no_grad():
            wanted = model.logits(pick(rows.features["final"], rows.anchors)).softmax(-1)
    return (-(wanted * said).sum(-1) * rows.real).sum() / rows.total


def train(draft: Any, data: Answered, *, steps: int, seed: int, out: Path, recipe: str, **how: Any) -> Fit:
    """Train the draft in place; `how` as for `fit`."""
    model = Frozen()
    return fit(
        "draft model",
        draft,
        make_optimizers(draft),
        batches(data, ANCHORS_PER_STEP, seed),
        lambda rows: loss(draft, model, rows),
        steps=steps,
        recipe=recipe,
        out=out,
        **how,
    )
