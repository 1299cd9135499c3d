"""Data parallelism over threads of one process: each computes the gradient of its share of the rows.

One thread per core, each with single-threaded kernels, needs to meet only once per step. Kernels that are themselves
spread over the cores meet thousands of times, and every other program on the machine then delays them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from labs_helpers.model.packing import Batch

if TYPE_CHECKING:
    import torch


def shares(batch: Batch, count: int) -> list[Batch]:
    """The batch's rows in `count` nearly equal parts; fewer when there are fewer rows."""
    count = min(count, len(batch.ids))
    cuts = [round(i * len(batch.ids) / count) for i in range(count + 1)]
    return [
        Batch(batch.ids[a:b], batch.positions[a:b], batch.weights[a:b], None if batch.mask is None else batch.mask[a:b])
        for a, b in pairwise(cuts)
    ]


class Workers:
    """A pool of threads with single-threaded torch kernels; use as a context."""

    def __init__(self, count: int) -> None:
        import torch

        self.count = count
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))

    def __enter__(self) -> Workers:
        import torch

        torch.set_num_threads(1)
        return self

    def __exit__(self, *exception: object) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def backward(
        self, loss_of: Callable[[Batch, float], torch.Tensor], batch: Batch, parameters: Sequence[torch.nn.Parameter]
    ) -> float:
        """Set `.grad` of all parameters to the gradient of the batch's mean loss; returns that loss.

        `loss_of(part, total_weight)` is the part's summed loss divided by the whole batch's weight.
        """
        total = batch.weights.sum().item()
        return self.gradients(lambda part: loss_of(part, total), shares(batch, self.count), parameters)

    def gradients(
        self, loss_of: Callable[[Any], torch.Tensor], parts: Sequence[Any], parameters: Sequence[torch.nn.Parameter]
    ) -> float:
        """Set `.grad` of all parameters to the gradient of the parts' summed loss; returns that loss."""
        import torch

        def work(part: Any) -> tuple[float, Sequence[torch.Tensor]]:
            loss = loss_of(part)
            return loss.item(), torch.autograd.grad(loss, parameters)

        done = list(self._pool.map(work, parts))
        for parameter, *gradients in zip(parameters, *(g for _, g in done), strict=True):
            total_gradient = gradients[0]
            for gradient in gradients[1:]:
                total_gradient = total_gradient + gradient
            parameter.grad = total_gradient
        return sum(loss for loss, _ in done)

    def step(self, optimizers: Sequence[Any]) -> None:
        """Step the optimisers side by side; they hold different parameters."""
        list(self._pool.map(lambda optimizer: optimizer.step(), optimizers))
