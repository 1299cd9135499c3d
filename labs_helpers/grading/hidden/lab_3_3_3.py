"""Hidden cases of lab 3.3.3: traces for the allocator and states for the scheduler, each judged by a second solution.

The allocator's second solution keeps no counts: who holds a block is found by looking through all tables. The
scheduler's second solution fills a step token by token.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from labs_helpers.exercises import Case, equals
from labs_helpers.syllabus.lab_3_3_3 import LLAMA_8B, allocates, request

Trace = tuple[tuple[str, tuple[Any, ...]], ...]


class Tables:
    """The same allocator by looking: tables of names, a new name for every block that is taken."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.blocks, self.size = blocks, block_size
        self.held: dict[str, list[int]] = {}
        self.length: dict[str, int] = {}
        self.names: Iterator[int] = itertools.count(1000)

    def unused(self) -> int:
        return self.blocks - len({name for names in self.held.values() for name in names})

    def allocate(self, sequence: str, tokens: int) -> bool:
        needed = len(range(0, tokens, self.size))
        if needed > self.unused():
            return False
        self.held[sequence] = list(itertools.islice(self.names, needed))
        self.length[sequence] = tokens
        return True

    def append(self, sequence: str) -> bool:
        table, full = self.held[sequence], self.length[sequence] % self.size == 0
        others = {name for other, names in self.held.items() if other != sequence for name in names}
        if full or table[-1] in others:
            if self.unused() == 0:
                return False
            if not full:
                table.pop()
            table.append(next(self.names))
        self.length[sequence] += 1
        return True

    def fork(self, parent: str, child: str) -> None:
        self.held[child], self.length[child] = list(self.held[parent]), self.length[parent]

    def free(self, sequence: str) -> int:
        before = self.unused()
        del self.held[sequence], self.length[sequence]
        return self.unused() - before

    def tables(self) -> dict[str, list[int]]:
        return {sequence: list(names) for sequence, names in self.held.items()}


def allocator_trace(name: str, blocks: int, block_size: int, trace: Trace) -> Case:
    model = Tables(blocks, block_size)
    expected = [getattr(model, method)(*arguments) for method, arguments in trace]
    return Case(name, allocates(blocks, expected), (blocks, block_size), trace)


def random_calls(seed: int, steps: int, blocks: int, block_size: int, forks: float = 1.0) -> Trace:
    """Any calls that make sense, at the end everything freed; after each change the tables and what is unused."""
    draw = random.Random(seed)  # noqa: S311
    model = Tables(blocks, block_size)
    made: list[tuple[str, tuple[Any, ...]]] = []
    for number in range(steps):
        alive = sorted(model.held)
        method = draw.choices(("allocate", "append", "fork", "free"), (2, 8, forks, 1.5))[0] if alive else "allocate"
        arguments: tuple[Any, ...] = (draw.choice(alive),) if alive else ()
        if method == "allocate":
            arguments = (f"s{number}", draw.randint(1, 3 * block_size))
        elif method == "fork":
            arguments = (*arguments, f"f{number}")
        getattr(model, method)(*arguments)
        made += [(method, arguments), ("unused", ())]
        if number % 5 == 0:
            made.append(("tables", ()))
    made += [("free", (sequence,)) for sequence in sorted(model.held)]
    return (*made, ("unused", ()), ("tables", ()))


BLOCK_ALLOCATOR = (
    allocator_trace("exactly full blocks", 3, 4, (
        ("allocate", ("a", 4)), ("unused", ()), ("append", ("a",)), ("unused", ()), ("tables", ()))),
    allocator_trace("a fork whose last block is full takes a new one and copies nothing", 4, 2, (
        ("allocate", ("a", 4)), ("fork", ("a", "b")), ("append", ("b",)), ("tables", ()), ("append", ("a",)),
        ("tables", ()), ("unused", ()))),
    allocator_trace("no block for the copy: nothing changes", 2, 4, (
        ("allocate", ("a", 6)), ("fork", ("a", "b")), ("append", ("b",)), ("tables", ()), ("free", ("a",)),
        ("append", ("b",)), ("unused", ()), ("tables", ()))),
    allocator_trace("three hold one block: each gets its own, the last keeps it", 8, 4, (
        ("allocate", ("a", 2)), ("fork", ("a", "b")), ("fork", ("b", "c")), ("append", ("a",)), ("append", ("b",)),
        ("unused", ()), ("append", ("c",)), ("unused", ()), ("tables", ()))),
    allocator_trace("an append that failed can be done later", 2, 2, (
        ("allocate", ("a", 2)), ("allocate", ("b", 2)), ("append", ("a",)), ("free", ("b",)), ("append", ("a",)),
        ("append", ("a",)), ("append", ("a",)), ("tables", ()), ("unused", ()))),
    allocator_trace("a name may be used again after it was freed", 2, 4, (
        ("allocate", ("a", 8)), ("free", ("a",)), ("allocate", ("a", 3)), ("tables", ()), ("unused", ()))),
    allocator_trace("one token per block", 3, 1, (
        ("allocate", ("a", 2)), ("fork", ("a", "b")), ("append", ("a",)), ("append", ("b",)), ("tables", ()))),
    allocator_trace("many calls, nothing leaks", 12, 4, random_calls(1, 120, 12, 4)),
    allocator_trace("many calls, a pool that is nearly always full", 6, 2, random_calls(2, 150, 6, 2)),
    allocator_trace("many calls, many forks", 24, 4, random_calls(3, 150, 24, 4, forks=4.0)),
    allocator_trace("many calls, large blocks", 10, 16, random_calls(4, 200, 10, 16)),
)  # fmt: skip


def next_step(
    running: list[dict[str, Any]],
    waiting: list[dict[str, Any]],
    free_blocks: int,
    block_size: int,
    budget: int,
    max_seqs: int,
) -> dict[str, Any]:
    """The text of the exercise, one token at a time."""
    run, wait = [dict(r) for r in running], [dict(r) for r in waiting]
    pool = free_blocks
    gone: list[dict[str, Any]] = []
    scheduled: dict[str, int] = {}

    def lacks(one: dict[str, Any], share: int) -> int:
        """Blocks that `share` more tokens need, counted as the places where a token opens a block."""
        return sum((one["computed"] + token) % block_size == 0 for token in range(share))

    def owned(one: dict[str, Any]) -> int:
        return sum(token % block_size == 0 for token in range(one["computed"]))

    for one in list(run):
        share = min(one["tokens"] - one["computed"], budget)
        if share == 0 or one in gone:
            break
        while lacks(one, share) > pool and one not in gone:
            victim = run.pop()
            gone.append(victim)
            pool += owned(victim)
        if one in gone:
            break
        pool -= lacks(one, share)
        budget -= share
        scheduled[one["id"]] = share
    while wait and not gone:
        share = min(wait[0]["tokens"] - wait[0]["computed"], budget)
        if share == 0 or len(run) == max_seqs or lacks(wait[0], share) > pool:
            break
        pool -= lacks(wait[0], share)
        budget -= share
        scheduled[wait[0]["id"]] = share
        run.append(wait.pop(0))
    return {
        "scheduled": scheduled,
        "preempted": [one["id"] for one in gone],
        "running": [one["id"] for one in run],
        "waiting": [one["id"] for one in gone[::-1]] + [one["id"] for one in wait],
    }


State = tuple[list[dict[str, Any]], list[dict[str, Any]], int, int, int, int]


def schedule_case(name: str, *state: Any) -> Case:
    return Case(name, equals(next_step(*state)), state)


def random_state(seed: int) -> State:
    draw = random.Random(seed)  # noqa: S311
    block = draw.choice((2, 4, 16))
    running = []
    for number in range(draw.randint(0, 7)):
        tokens = draw.randint(2, 40)
        computed = tokens - 1 if draw.random() < 0.7 else draw.randint(1, tokens - 1)
        running.append(request(f"r{number}", tokens, computed))
    waiting = [request(f"w{number}", draw.randint(1, 40)) for number in range(draw.randint(0, 5))]
    return running, waiting, draw.choice((0, 0, 1, 2, 6, 40)), block, draw.choice((2, 8, 40, 200)), draw.randint(7, 10)


SCHEDULE = (
    schedule_case("nobody is there", [], [], 10, 16, 64, 8),
    schedule_case("a prompt that is still being read goes on", [request("a", 100, 32)], [], 10, 16, 32, 8),
    schedule_case("the budget ends amid the running: nobody loses a place",
                  [request("a", 9, 8), request("b", 9, 8), request("c", 9, 8)], [request("d", 4)], 10, 16, 2, 8),
    schedule_case("a token that fits into the last block needs no new one",
                  [request("a", 16, 15), request("b", 9, 8)], [], 0, 16, 64, 8),
    schedule_case("two must go for one",
                  [request("a", 60, 20), request("b", 9, 8), request("c", 9, 8), request("d", 9, 8)],
                  [request("e", 4)], 1, 16, 64, 8),
    schedule_case("the last one preempts itself",
                  [request("a", 9, 8), request("b", 17, 16)], [request("c", 4)], 0, 16, 64, 8),
    schedule_case("the only one preempts itself", [request("a", 33, 32)], [], 0, 16, 64, 8),
    schedule_case("a first chunk needs blocks for that chunk only", [], [request("a", 100)], 2, 16, 32, 8),
    schedule_case("exactly enough blocks", [], [request("a", 32), request("b", 16)], 3, 16, 64, 8),
    schedule_case("the last seat", [request("a", 9, 8)], [request("b", 4), request("c", 4)], 9, 16, 64, 2),
    *(schedule_case(f"any state, {seed}", *random_state(seed)) for seed in range(24)),
)  # fmt: skip

KV_BYTES = (
    Case("fewer heads than the hidden size suggests", equals(2 * 10 * 2 * 64 * 2), (
        {"num_hidden_layers": 10, "hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2,
         "head_dim": 64}, 2)),
    Case("a head size that is not hidden size / heads", equals(2 * 28 * 8 * 128 * 2), (
        {"num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128}, 2)),
    Case("one KV head for all", equals(2 * 18 * 256 * 2), (
        {"num_hidden_layers": 18, "hidden_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 1,
         "head_dim": 256}, 2)),
    Case("named, but empty", equals(2 * 12 * 12 * 64 * 4), (
        {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": None,
         "head_dim": None}, 4)),
    Case("four bits", equals(2 * 32 * 8 * 128 * 0.5), (LLAMA_8B, 0.5)),
)  # fmt: skip


def best(sweep: list[list[Any]], ttft_ms: float, tpot_ms: float, share: float) -> list[float] | None:
    """By the text: every probe with enough in time, its goodput, then the highest, then the lowest rate."""
    found: list[list[float]] = []
    for rate, seconds, requests in sweep:
        met = [1 for ttft, tpot in requests if ttft is not None and ttft <= ttft_ms and (tpot or 0) <= tpot_ms]
        if len(met) >= share * len(requests):
            found.append([rate, len(met) / seconds])
    top = max((good for _, good in found), default=0)
    return next((probe for probe in sorted(found) if probe[1] == top), None)


def knee_case(name: str, sweep: list[list[Any]], ttft_ms: float, tpot_ms: float, share: float = 0.9) -> Case:
    return Case(name, equals(best(sweep, ttft_ms, tpot_ms, share)), (sweep, ttft_ms, tpot_ms, share))


def _random_sweep(seed: int) -> list[list[Any]]:
    draw = random.Random(seed)  # noqa: S311
    probes = []
    for rate in draw.sample(range(1, 60), 7):
        requests: list[list[Any]] = [
            [draw.uniform(10, 40 + 4 * rate), draw.choice((None, draw.uniform(5, 10 + rate)))]
            if draw.random() > 0.05
            else [None, None]
            for _ in range(3 * rate)
        ]
        probes.append([float(rate), 3.0 + draw.random(), requests])
    return probes


KNEE = (
    knee_case("no probes", [], 100, 20),
    knee_case("not in order of rate", [[8.0, 1.0, [[10, 5]] * 2], [2.0, 1.0, [[10, 5]] * 2], [4.0, 1.0, [[10, 5]] * 3],
                                       [6.0, 1.0, [[200, 5]] * 6]], 100, 20),
    knee_case("equally good: the lower rate", [[5.0, 1.0, [[10, 5]] * 3], [3.0, 1.0, [[10, 5]] * 3]], 100, 20),
    knee_case("a long probe has more requests, not more goodput",
              [[2.0, 10.0, [[10, 5]] * 20], [4.0, 2.0, [[10, 5]] * 8]], 100, 20),
    knee_case("TPOT alone is missed", [[2.0, 1.0, [[10, 50], [10, 5]]], [1.0, 1.0, [[10, 5]] * 2]], 100, 20),
    knee_case("all failed", [[2.0, 1.0, [[None, None]] * 3]], 100, 20),
    knee_case("a failed request is one that was not served", [[4.0, 1.0, [[10, 5]] * 3 + [[None, None]]],
                                                              [2.0, 1.0, [[10, 5]] * 2]], 100, 20),
    knee_case("exactly the share is enough", [[4.0, 1.0, [[10, 5]] * 3 + [[999, 5]]]], 100, 20, 0.75),
    *(knee_case(f"any sweep, {seed}", _random_sweep(seed), 150, 40, 0.6) for seed in range(4)),
)  # fmt: skip

CASES = {"BlockAllocator": BLOCK_ALLOCATOR, "schedule": SCHEDULE, "kv_bytes": KV_BYTES, "knee": KNEE}
