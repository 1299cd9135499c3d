"""What a round costs, measured, and the speedup that follows: tau / (verify ratio + draft cost)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError
from labs_helpers.speculation.drafter import Draft, Drafter, Sampling
from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    from labs_helpers.speculation.target import Output, Target

CONTEXT = 96
"""Cached tokens behind which a step is timed: about the middle of an answer."""


def verify_costs(target: Target, sizes: Sequence[int], context: int = CONTEXT, passes: int = 15) -> dict[int, float]:
    """Seconds of one step of the target over a chain of M tokens, for every M in `sizes`: the median of interleaved
    passes. M = 1 is a plain step. M streams that decode one token each cost nearly the same.

    Raises:
        LabsError: a size below 1, or one that does not fit the cache behind `context` tokens.
    """

    if any(size < 1 or context + size > target.capacity for size in sizes):
        raise LabsError(f"sizes {list(sizes)} do not fit", f"use 1 to {target.capacity - context}")
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    with target.running():
        target.prefill([5 + i % 1000 for i in range(context)])
        for number in range(passes + 2):
            for size, seconds in taken.items():
                tokens = list(range(5, 5 + size))
                started = time.perf_counter()
                target.step(tokens, context, Tree.chain(size - 1)).logits.argmax(-1).tolist()
                if number >= 2:  # the first passes warm up
                    seconds.append(time.perf_counter() - started)
    return {size: median(seconds) for size, seconds in taken.items()}


def draft_cost(target: Target, drafter: Drafter, prompts: int = 6, max_new_tokens: int = 64) -> float:
    """Seconds that a drafter takes per round, the median over rounds on a few chat prompts: drafting, and taking note
    of what was accepted.

    Raises:
        LabsError: no round came about.
    """
    from labs_helpers.model.prompts import chat_prompts, chat_token_ids
    from labs_helpers.speculation.loop import generate

    timed = _Timed(drafter)
    for text in chat_prompts(prompts, seed=77):
        generate(target, chat_token_ids([("user", text)]), timed, max_new_tokens)
    if not timed.drafting:
        raise LabsError("no round was drafted", "ask for more prompts")
    return median(timed.drafting) + median(timed.accepting)


def predicted_speedup(tau: float, verify_ratio: float, draft_cost: float, prefill_share: float = 0.0) -> float:
    """tau / (verify ratio + draft cost), both costs as multiples of a plain step.

    prefill_share: of the plain answer's time; what speculation does not touch (Amdahl).
    """
    decode = (verify_ratio + draft_cost) / tau
    return 1.0 / (prefill_share + (1.0 - prefill_share) * decode)


def interpolate(seconds: Mapping[int, float], size: float) -> float:
    """Seconds of a step over `size` tokens, on the line between the measured sizes around it; beyond the last, along
    the last piece.

    Raises:
        LabsError: fewer than two sizes were measured.
    """
    known = sorted(seconds)
    if len(known) < 2:
        raise LabsError("a line needs two measured sizes", "measure more with verify_costs")
    at = min(max(1, sum(k < size for k in known)), len(known) - 1)
    low, high = known[at - 1], known[at]
    return seconds[low] + (seconds[high] - seconds[low]) * (size - low) / (high - low)


class _Timed:
    """A drafter with a watch."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.name, self.taps, self.all_rows = drafter.name, drafter.taps, drafter.all_rows
        self.drafting: list[float] = []
        self.accepting: list[float] = []

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        self._drafter.begin(target, prompt, output, first, sampling)

    def draft(self, room: int) -> Draft:
        started = time.perf_counter()
        found = self._drafter.draft(room)
        self.drafting.append(time.perf_counter() - started)
        return found

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        started = time.perf_counter()
        self._drafter.accept(output, path, tokens)
        self.accepting.append(time.perf_counter() - started)
