"""Lab 3.3.5, EAGLE-3: what it needs, must measure and asks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from labs_helpers.exercises import Case, Judge, equals, holds
from labs_helpers.syllabus import LabSpec
from labs_helpers.syllabus.requirements import (
    LOOP,
    acceptance_agrees,
    methods_measured,
    none_failed,
    same_tokens,
    witnessed,
)

Distribution = list[float]
METHODS = ("prompt lookup", "draft model", "medusa", "eagle", "eagle3")


def distributed_as(expected: Sequence[float], weights: Sequence[float], place: int = 0) -> Judge:
    """Right when over many rounds, each counted by its weight, the token at `place` comes out as often as expected.

    Rounds that ended before `place` do not count.
    """

    def rule(value: Any) -> str:
        share = [0.0] * len(expected)
        for tokens, weight in zip(value, weights, strict=True):
            if len(tokens) > place:
                share[tokens[place]] += weight
        total = sum(share)
        share = [round(s / total, 6) if total else 0.0 for s in share]
        right = all(abs(a - b) < 1e-5 for a, b in zip(share, expected, strict=True))
        return "" if right else f"over all draws the shares are {share}; the target's are {expected}"

    return holds(rule)


def grid(n: int) -> list[float]:
    """`n` uniform numbers that stand for all: the middles of `n` equal parts of 0 to 1."""
    return [(i + 0.5) / n for i in range(n)]


def distribution_case(name: str, q: Distribution, p: Distribution, fine: tuple[int, int]) -> Case:
    """One draft from q, held against p, for every draft and a grid of draws: the token must come out as in p.

    `fine` are the points of the grid for the two draws. Where they hit every threshold, the result is exact.
    """
    after = [1.0 / len(p)] * len(p)
    rounds = [
        (draft, u, v)
        for draft, u, v in product(range(len(q)), grid(fine[0]), grid(fine[1]))
        if q[draft] > 0  # what is never drafted is never asked about
    ]
    return Case(
        name,
        distributed_as(p, [q[draft] for draft, _, _ in rounds]),
        trace=tuple(("", ([draft], [q], [p, after], [u, v])) for draft, u, v in rounds),
    )


SAMPLE_ROUND = (
    Case(
        "a draft the target likes at least as well is always taken, and one more token follows",
        equals([1, 0]),
        ([1], [[0.5, 0.5]], [[0.2, 0.8], [0.6, 0.4]], [0.99, 0.5]),
    ),
    Case(
        "a refused draft is replaced from what is left, and the round ends",
        equals([2]),
        ([0, 1], [[0.8, 0.1, 0.1]] * 2, [[0.2, 0.3, 0.5], [0, 1, 0], [1, 0, 0]], [0.3, 0.7, 0.1]),
    ),
    Case(
        "what the target excludes is never taken",
        equals([1]),
        ([0], [[0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0]),
    ),
    distribution_case("over all draws: the target's own distribution", [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], (10, 4)),
)

EXPECTED_LENGTH = (
    Case("no draft: the target's own token", equals(1.0), ([],)),
    Case("one draft, right three times in four", equals(1.75), ([0.75],)),
    Case("a draft counts only when all before it were accepted", equals(1 + 0.8 + 0.8 * 0.5), ([0.8, 0.5],)),
    Case("after a sure refusal nothing counts", equals(1.5), ([0.5, 0.0, 0.9],)),
)

SPEC = LabSpec(
    id="3.3.5",
    title="EAGLE-3 and its Relatives",
    engines=("vllm", "sglang"),
    requirements=(
        methods_measured("speedup", LOOP, METHODS),
        methods_measured("acceptance_length", LOOP, METHODS),
        same_tokens(LOOP, METHODS),
        methods_measured("speedup", "vllm", ("eagle3",)),
        methods_measured("speedup", "sglang", ("eagle3",)),
        acceptance_agrees("vllm", "eagle3", 0.05),
        acceptance_agrees("sglang", "eagle3", 0.05),
        witnessed("completion_tokens", 0.02, 2),
        none_failed(),
    ),
    cases={"sample_round": SAMPLE_ROUND, "expected_length": EXPECTED_LENGTH},
)
