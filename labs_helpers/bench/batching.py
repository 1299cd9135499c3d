"""Continuous batching: what a scheduler puts into one step, and what a load costs step by step.

Sources: Yu et al., "Orca" (OSDI 2022), section 3.1, iteration-level scheduling; vLLM, `Scheduler.schedule` of
vllm/v1/core/sched/scheduler.py, whose first-come, first-served policy without prefix cache this is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from labs_helpers.bench.blocks import blocks_for
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.bench.report import Run

STEPS, STEP_TOKENS = "vllm:iteration_tokens_total_count", "vllm:iteration_tokens_total_sum"
"""vLLM's own count of its steps, and of the tokens in them, those of prompts included."""
PLENTY = 10**9


class Sequence_(TypedDict):
    """A request as the scheduler sees it: `tokens` of prompt and output so far, `computed` of them in the KV cache."""

    id: str
    tokens: int
    computed: int


class Plan(TypedDict):
    """What one step does: tokens per request, who was preempted, and the two queues afterwards."""

    scheduled: dict[str, int]
    preempted: list[str]
    running: list[str]
    waiting: list[str]


Step = Callable[..., Any]
"""`schedule`, or a student's."""


def schedule(
    running: Sequence[Sequence_],
    waiting: Sequence[Sequence_],
    free_blocks: int,
    block_size: int,
    budget: int,
    max_seqs: int,
) -> Plan:
    """One step of a continuous batching scheduler with chunked prefill.

    Running requests come first, in their order; each gets what it lacks, as far as the budget goes. When a block is
    missing, the last of the running is preempted: it loses its blocks and is the first to wait. Waiting requests are
    admitted in their order, as long as nobody was preempted and budget, seats and blocks last.
    """
    scheduled: dict[str, int] = {}
    preempted: list[str] = []
    held = list(running)
    at = 0
    while at < len(held) and budget > 0:
        request = held[at]
        share = min(request["tokens"] - request["computed"], budget)
        needed = _new_blocks(request, share, block_size)
        while needed > free_blocks and len(held) > at:
            victim = held.pop()
            free_blocks += blocks_for(victim["computed"], block_size)
            preempted.append(victim["id"])
        if len(held) == at:  # it was the last one itself
            break
        free_blocks -= needed
        budget -= share
        scheduled[request["id"]] = share
        at += 1
    queue = [request["id"] for request in waiting]
    if not preempted:
        for request in waiting:
            share = min(request["tokens"] - request["computed"], budget)
            needed = _new_blocks(request, share, block_size)
            if share <= 0 or len(held) >= max_seqs or needed > free_blocks:
                break
            free_blocks -= needed
            budget -= share
            scheduled[request["id"]] = share
            held.append(request)
            queue.pop(0)
    return Plan(
        scheduled=scheduled,
        preempted=preempted,
        running=[request["id"] for request in held],
        waiting=[*reversed(preempted), *queue],
    )


def _new_blocks(request: Sequence_, share: int, block_size: int) -> int:
    held = blocks_for(request["computed"], block_size)
    return blocks_for(request["computed"] + share, block_size) - held


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step: a part for the step itself (weights, scheduling), and a part for every token in it."""

    per_step_s: float
    per_token_s: float

    @classmethod
    def fit(cls, runs: Iterable[Run]) -> StepCost:
        """Least squares over loads of different concurrency, by the engine's own count of steps and tokens.

        Every run weighs the same, however long it took.

        Raises:
            LabsError: fewer than two runs, or an engine that does not count its steps.
        """
        rows = [(run.engine_count(STEPS), run.engine_count(STEP_TOKENS), run.duration_s) for run in runs]
        if len(rows) < 2:
            raise LabsError(f"{len(rows)} runs do not tell two costs apart", "give runs at several concurrencies")
        steps, tokens, seconds = np.array(rows).T
        design = np.stack([steps / seconds, tokens / seconds], axis=1)
        found, *_ = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)
        return cls(float(found[0]), float(found[1]))


@dataclass(frozen=True)
class Simulated:
    """What a simulated load took."""

    steps: int
    seconds: float
    preemptions: int
    running: tuple[int, ...]
    """Requests in each step."""


def simulate_batching(
    requests: Iterable[tuple[int, int]],
    streams: int,
    cost: StepCost = StepCost(1.0, 0.0),
    *,
    waves: bool = False,
    step: Step = schedule,
    budget: int = PLENTY,
    max_seqs: int = PLENTY,
    blocks: int = PLENTY,
    block_size: int = 16,
) -> Simulated:
    """Run a load through a scheduler, one step after the other, without computing anything.

    Args:
        requests: (prompt tokens, output tokens) in the order of sending.
        streams: requests in flight, all at once from the start.
        cost: of a step; by default every step costs 1.
        waves: the next `streams` requests are sent when all before them have ended (static batching).
        step: the scheduler; called with JSON values only, as `schedule` is.
        budget, max_seqs, blocks, block_size: the scheduler's limits.

    Raises:
        LabsError: the scheduler does nothing although requests wait.
    """
    todo = deque((f"r{i}", prompt, output) for i, (prompt, output) in enumerate(requests))
    state: dict[str, Sequence_] = {}
    left: dict[str, int] = {}
    running: list[str] = []
    waiting: list[str] = []
    seconds, preemptions, seen = 0.0, 0, []
    while todo or running or waiting:
        if not (waves and (running or waiting)):
            while todo and len(running) + len(waiting) < streams:
                name, prompt, output = todo.popleft()
                state[name], left[name] = Sequence_(id=name, tokens=prompt, computed=0), output
                waiting.append(name)
        free = blocks - sum(blocks_for(state[name]["computed"], block_size) for name in running)
        plan = step([state[n] for n in running], [state[n] for n in waiting], free, block_size, budget, max_seqs)
        if not plan["scheduled"] and not plan["preempted"]:
            raise LabsError("the scheduler schedules nothing", "a request may be larger than the pool")
        for name in plan["preempted"]:
            state[name]["computed"] = 0
        preemptions += len(plan["preempted"])
        running, waiting = list(plan["running"]), list(plan["waiting"])
        for name, tokens in plan["scheduled"].items():
            state[name]["computed"] += tokens
            if state[name]["computed"] == state[name]["tokens"]:  # its last token's result is the next token
                state[name]["tokens"] += 1
                left[name] -= 1
                if not left[name]:
                    running.remove(name)
        if plan["scheduled"]:
            seen.append(len(plan["scheduled"]))
            seconds += cost.per_step_s + cost.per_token_s * sum(plan["scheduled"].values())
    return Simulated(len(seen), seconds, preemptions, tuple(seen))
