"""The optimiser: Muon for the matrices, AdamW for the embedding and the norms, one schedule for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MATRIX_LR = 4e-3
OTHER_LR = 2e-3
WARMUP_STEPS = 30
DECAY_FROM = 0.5
"""Share of the run after which the rate falls linearly to (nearly) zero."""


def make_optimizers(model: torch.nn.Module, parts: int = 2) -> list[Any]:
    """Muon (Jordan et al. 2024, orthogonalised momentum) learns from fewer tokens than AdamW; tokens are what a CPU
    is short of. It is defined for hidden matrices only. They come in `parts` optimisers, to be stepped side by side,
    before the one AdamW."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muons = [torch.optim.Muon(matrices[i::parts], lr=MATRIX_LR, momentum=0.95, weight_decay=0.05, ns_steps=3,
                              adjust_lr_fn="match_rms_adamw") for i in range(parts)]
    adamw = torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0)
    return [*muons, adamw]


def rate(step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`, as a share of its peak: warm up, hold, fall to 2%."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = step / max(1, steps)
    return 1.0 if done < DECAY_FROM else max(0.02, (1.0 - done) / (1.0 - DECAY_FROM))


def set_rate(optimizers: list[Any], share: float) -> None:
    """Set the learning rates of `make_optimizers` to a share of their peaks."""
    for number, optimizer in enumerate(optimizers, 1):
        for group in optimizer.param_groups:
            group["lr"] = share * (OTHER_LR if number == len(optimizers) else MATRIX_LR)
