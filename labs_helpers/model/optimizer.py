"""The optimiser: Muon for the matrices, AdamW for the embedding and the norms; one rate, as a share, moves both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MATRIX_LR = 3e-3
EMBEDDING_LR = 1.5e-3
"""Low, for rare tokens get a full step of AdamW from the smallest gradient and would lose what tells them apart."""
NORM_LR = 3e-4


def make_optimizers(model: torch.nn.Module, parts: int = 2, tables: tuple[str, ...] = ("embed",)) -> list[Any]:
    """Muon (Jordan et al. 2024, orthogonalised momentum) learns from fewer tokens than AdamW; tokens are what a CPU
    is short of. It is defined for hidden matrices only. They come in `parts` optimisers, to be stepped side by side,
    before the one AdamW. Parameters with one of `tables` in their name are taken for embeddings or output heads."""
    import torch

    named = list(model.named_parameters())
    embedding = [p for n, p in named if any(table in n for table in tables)]
    matrices = [p for n, p in named if p.ndim == 2 and not any(table in n for table in tables)]
    norms = [p for _, p in named if p.ndim != 2]
    muons = [
        torch.optim.Muon(
            matrices[i::parts],
            lr=MATRIX_LR,
            momentum=0.95,
            weight_decay=0.05,
            ns_steps=3,
            adjust_lr_fn="match_rms_adamw",
        )
        for i in range(parts)
    ]
    adamw = torch.optim.AdamW(
        [{"params": embedding, "lr": EMBEDDING_LR}, {"params": norms, "lr": NORM_LR}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    for group in (group for optimizer in (*muons, adamw) for group in optimizer.param_groups):
        group["peak"] = group["lr"]
    return [*muons, adamw]


def set_rate(optimizers: list[Any], share: float) -> None:
    """Set the learning rates of `make_optimizers` to a share of their peaks."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak"] * share
