"""The optimiser: Muon for the matrices, AdamW for the embedding and the norms, one schedule for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MATRIX_LR = 5e-3
OTHER_LR = 3e-3
WARMUP_STEPS = 30
DECAY_FROM = 0.5
"""Share of the run after which the rate falls linearly to (nearly) zero."""


def make_optimizers(model: torch.nn.Module) -> tuple[Any, Any]:
    """Muon (Jordan et al. 2024, orthogonalised momentum) learns from fewer tokens than AdamW; tokens are what a CPU
    is short of. It is defined for hidden matrices only."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=MATRIX_LR, momentum=0.95, weight_decay=0.05, ns_steps=4,
                            adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0)
    return muon, adamw


def rate(step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`, as a share of its peak: warm up, hold, fall to 2%."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = step / max(1, steps)
    return 1.0 if done < DECAY_FROM else max(0.02, (1.0 - done) / (1.0 - DECAY_FROM))


def set_rate(optimizers: tuple[Any, Any], share: float) -> None:
    for optimizer, peak in zip(optimizers, (MATRIX_LR, OTHER_LR), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * share
