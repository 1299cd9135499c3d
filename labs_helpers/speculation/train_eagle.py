"""Training of the first EAGLE's draft: the next feature regressed from the true one, one step deep.

Li et al. 2024, arXiv 2401.15077, section 4.2: smooth L1 to the model's feature plus a tenth of the cross entropy of
what the model's head reads from it; noise on the features it reads, for at drafting time it reads its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from labs_helpers.model.optimizer import make_optimizers
from labs_helpers.speculation.eagle_draft import EagleDraft
from labs_helpers.speculation.features import Answered, Frozen
from labs_helpers.speculation.fitting import Fit, fit
from labs_helpers.speculation.rows import Rows, batches
from labs_helpers.speculation.unroll import pick, unroll

ANCHORS_PER_STEP = 1536
STEPS = 400
TOKEN_WEIGHT = 0.1
NOISE = 0.2
"""Uniform noise of this full width, in standard deviations of a feature."""


def loss(draft: EagleDraft, model: Frozen, rows: Rows, scale: float) -> torch.Tensor:
    """Both losses over the anchors that have a token after the next; `scale` is the features' standard deviation."""
    noise = torch.Generator().manual_seed(int(rows.ids.sum()))  # the same for the same batch, whichever thread has it
    true = rows.features["final"].float()
    noisy = true + scale * NOISE * (torch.rand(true.shape, generator=noise) - 0.5)
    counts = rows.within(2)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = unroll(draft, model, rows, noisy, 1)[0].float()
        target = pick(true, rows.at(1))
        wanted = functional.linear(target, model.embedding).float().softmax(-1)
        said = functional.linear(found, model.embedding).float().log_softmax(-1)
    regression = functional.smooth_l1_loss(found / scale, target / scale, reduction="none").mean(-1)
    each = regression - TOKEN_WEIGHT * (wanted * said).sum(-1)
    return (each * counts).sum() / rows.total


def train(draft: EagleDraft, data: Answered, *, steps: int, seed: int, out: Path, recipe: str, **how: Any) -> Fit:
    """Train the draft in place; `how` as for `fit`."""
    model = Frozen()
    scale = float(data.features["final"][:: max(1, len(data.ids) // 10_000)].float().std())
    return fit(
        "EAGLE draft",
        draft,
        make_optimizers(draft, tables=()),
        batches(data, ANCHORS_PER_STEP, seed),
        lambda rows: loss(draft, model, rows, scale),
        steps=steps,
        recipe=recipe,
        out=out,
        **how,
    )
