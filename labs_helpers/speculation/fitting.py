"""The training loop of all drafts: seeded, data-parallel over threads, and going on from its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.checkpoint import load_checkpoint, save_checkpoint
from labs_helpers.model.optimizer import set_rate
from labs_helpers.model.parallel import Workers
from labs_helpers.model.train import _progress, _recent

if TYPE_CHECKING:
    import torch

CHECKPOINT_SECONDS = 60.0
WARMUP_STEPS = 20


@dataclass(frozen=True)
class Fit:
    """What a run did; seconds include those of an earlier, interrupted run."""

    steps: int
    tokens: int
    """Positions learned from, counted each time one was seen."""
    seconds: float
    loss: float
    """Mean training loss of the last 20 steps."""


Batch = tuple[Sequence[Any], int]
"""Parts, one per worker thread, and how many positions they hold together."""


def rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: warm-up, then linearly down to a fiftieth."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (1.0 - 0.98 * step / steps)


def fit(
    name: str,
    module: torch.nn.Module,
    optimizers: list[Any],
    batches: Iterator[Callable[[], Batch]],
    loss_of: Callable[[Any], torch.Tensor],
    *,
    steps: int,
    recipe: str,
    out: Path,
    resume: bool = True,
    threads: int | None = None,
) -> Fit:
    """Train `module` in place for `steps` steps.

    Args:
        batches: the same stream for the same recipe; an entry makes its batch when called.
        loss_of: a part's share of the batch's loss. Autocast without its cache, which threads share: whether two uses
            of a weight are summed in bf16 or in fp32 would hang on who comes first.
        recipe: what the run is; a checkpoint of another is refused.
        out: the folder of the checkpoint `training.pt`; the caller removes it once the weights are written.

    Raises:
        LabsError: the checkpoint belongs to another run, or cannot be written.
    """
    import torch

    path = out / "training.pt"
    state = load_checkpoint(path) if resume else None
    if state and state["recipe"] != recipe:
        raise LabsError(f"{path} belongs to another run ({state['recipe']})", "use the same options, or --fresh")
    start, spent, seen, history = 0, 0.0, 0, []
    if state:
        module.load_state_dict(state["module"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, spent, seen, history = state["step"], state["seconds"], state["seen"], state["losses"]
    began = saved_at = time.monotonic()

    def snapshot(step: int) -> None:
        now = {"recipe": recipe, "step": step, "seconds": spent + time.monotonic() - began, "seen": seen}
        now |= {"losses": history, "module": module.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
        save_checkpoint(now, path)

    parameters = [p for p in module.parameters() if p.requires_grad]
    with Workers(threads or torch.get_num_threads()) as pool, _progress() as progress:
        task = progress.add_task(f"{name}: preparing", total=steps, completed=start)
        for step, make in enumerate(islice(batches, start, steps), start):
            parts, count = make()
            set_rate(optimizers, rate(step, steps))
            history.append(pool.gradients(loss_of, parts, parameters))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            pool.step(optimizers)
            seen += count
            progress.update(task, completed=step + 1, description=f"{name}, loss {_recent(history):.3f}")
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                snapshot(step + 1)
                saved_at = time.monotonic()
    snapshot(steps)
    return Fit(steps, seen, spent + time.monotonic() - began, _recent(history))
