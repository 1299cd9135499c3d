"""Lab 3.3.2, SGLang and RadixAttention: what it needs, must measure and asks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from labs_helpers.exercises import Case, Judge, equals, holds
from labs_helpers.syllabus import LabSpec
from labs_helpers.syllabus.requirements import (
    all_valid,
    concurrencies_measured,
    engines_measured,
    none_failed,
    prediction_holds,
    ratio_at_most,
    witnessed,
)

RADIX_TREE = (
    Case(
        "what was inserted is matched, as far as it goes",
        equals([3, 3, 2, 0]),
        trace=(("insert", ([1, 2, 3],)), ("match", ([1, 2, 3],)), ("match", ([1, 2, 9],)), ("match", ([9],))),
    ),
    Case(
        "an insert that parts a run adds only what is new",
        equals([4, 1, 4, 3, 2]),
        trace=(
            ("insert", ([1, 2, 3, 4],)),
            ("insert", ([1, 2, 5],)),
            ("match", ([1, 2, 3, 4],)),
            ("match", ([1, 2, 5, 6],)),
            ("match", ([1, 2, 7],)),
        ),
    ),
    Case(
        "the leaf that was used longest ago goes first",
        equals([2, 2, 2, 2, 0, 2]),
        trace=(
            ("insert", ([1, 2],)),
            ("insert", ([3, 4],)),
            ("match", ([1, 2],)),
            ("evict", (1,)),
            ("match", ([3, 4],)),
            ("match", ([1, 2],)),
        ),
    ),
    Case(
        "a parent goes only after its children",
        equals([3, 1, 1, 2, 1, 2, 0]),
        trace=(
            ("insert", ([1, 2, 3],)),
            ("insert", ([1, 2, 4],)),
            ("evict", (1,)),
            ("match", ([1, 2, 3],)),
            ("evict", (1,)),
            ("evict", (1,)),
            ("match", ([1, 2],)),
        ),
    ),
    Case(
        "what is locked stays, until it is unlocked",
        equals([2, 2, 2, 2, 2, 2, 2]),
        trace=(
            ("insert", ([1, 2],)),
            ("insert", ([3, 4],)),
            ("lock", ([1, 2],)),
            ("evict", (10,)),
            ("match", ([1, 2],)),
            ("unlock", ([1, 2],)),
            ("evict", (10,)),
        ),
    ),
)

PREDICT = (
    Case("the same prompt again: all but its last token", equals([0, 4]), ([[[1, 2, 3, 4, 5], []]] * 2, 1)),
    Case("a common beginning", equals([0, 3]), ([[[1, 2, 3, 4, 5], []], [[1, 2, 3, 9, 9, 9], []]], 1)),
    Case("whole pages only", equals([0, 4]), ([[list(range(10)), []], [[*range(7), 99, 98, 97], []]], 4)),
    Case(
        "the next turn of a chat: of the output all but the last token",
        equals([0, 6]),
        ([[[1, 2, 3, 4], [50, 51, 52]], [[1, 2, 3, 4, 50, 51, 52, 7, 8], []]], 1),
    ),
)


def shares_most(prompts: Sequence[Sequence[int]]) -> Judge:
    """Right when the order is one in which neighbours share as much as any order of these prompts allows."""
    best = sum(map(len, prompts)) - len({tuple(p[: i + 1]) for p in prompts for i in range(len(p))})

    def rule(value: Any) -> str:
        if not all(type(i) is int for i in value) or sorted(value) != list(range(len(prompts))):
            return f"expected every number from 0 to {len(prompts) - 1} once, got {value!r}"
        found = sum(_common(prompts[a], prompts[b]) for a, b in pairwise(value))
        return "" if found == best else f"neighbours share {found} tokens in this order; {best} are possible"

    return holds(rule)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def order_case(name: str, prompts: list[list[int]]) -> Case:
    return Case(name, shares_most(prompts), (prompts,))


ORDER = (
    order_case("two documents, asked in turns", [[1, 1, 5], [2, 2, 5], [1, 1, 6], [2, 2, 6]]),
    order_case(
        "sections within documents", [[1, 2, 3, 7], [1, 4, 5, 7], [1, 2, 3, 8], [9, 9], [1, 4, 5, 8], [1, 2, 6]]
    ),
    order_case("nothing to share", [[3], [1], [2]]),
)

SPEC = LabSpec(
    id="3.3.2",
    title="SGLang and RadixAttention",
    engines=("sglang", "vllm"),
    requirements=(
        engines_measured("ttft", 2),
        concurrencies_measured("request_throughput", (1, 4), 2),
        ratio_at_most("ttft", "sglang", of="warm", to="warm, cache off", most=1 / 3, prompt_tokens=2048),
        prediction_holds(1, 2),
        witnessed("cached_tokens", 0.02, 2),
        witnessed("completion_tokens", 0.02, 2),
        engines_measured("cache_hit_rate", 2),
        all_valid(("sglang", "vllm"), "json schema", 50),
        none_failed(),
    ),
    cases={"RadixTree": RADIX_TREE, "predict": PREDICT, "order": ORDER},
)
