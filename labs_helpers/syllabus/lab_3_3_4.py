"""Lab 3.3.4, Medusa: what it needs, must measure and asks."""

from __future__ import annotations

import math
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

ACCEPT = (
    Case("a chain, right up to its second draft", equals([1, 2]), ([-1, 0, 1, 2], [7, 4, 9, 3], [4, 9, 5, 0])),
    Case("nothing is right", equals([]), ([-1, 0, 0], [7, 1, 2], [3, 1, 2])),
    Case("the second branch is the right one", equals([2, 4]), ([-1, 0, 0, 1, 2], [7, 1, 2, 8, 5], [2, 8, 5, 0, 6])),
    Case("a right token after a wrong one does not count", equals([]), ([-1, 0, 1], [7, 1, 9], [4, 9, 0])),
)


def is_mask(expected: Sequence[Sequence[int]]) -> Judge:
    """Right when every entry says the same as `expected`; True and 1 are the same, and so are False and 0."""

    def rule(value: Any) -> str:
        size = len(expected)
        if len(value) != size or any(len(row) != size for row in value):
            return f"expected {size} rows of {size} entries, got {value!r}"
        wrong = [(i, j) for i in range(size) for j in range(size) if value[i][j] not in (0, 1)]
        if wrong:
            return f"entry {wrong[0]} is {value[wrong[0][0]][wrong[0][1]]!r}, neither 0 nor 1"
        wrong = [(i, j) for i in range(size) for j in range(size) if value[i][j] != expected[i][j]]
        return f"row {wrong[0][0]}, column {wrong[0][1]} must be {expected[wrong[0][0]][wrong[0][1]]}" if wrong else ""

    return holds(rule)


TREE_MASK = (
    Case("a chain sees all before it", is_mask([[1, 0, 0], [1, 1, 0], [1, 1, 1]]), ([-1, 0, 1],)),
    Case("siblings do not see each other", is_mask([[1, 0, 0], [1, 1, 0], [1, 0, 1]]), ([-1, 0, 0],)),
    Case(
        "two branches of two",
        is_mask([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]]),
        ([-1, 0, 0, 1, 2],),
    ),
    Case("the root alone", is_mask([[1]]), ([-1],)),
)


def best_paths(accuracy: Sequence[Sequence[float]], nodes: int) -> Judge:
    """Right when the paths are a tree of `nodes` nodes, and none of that size accepts more tokens on average."""
    values = sorted((_value(path, accuracy) for path in _all_paths(accuracy)), reverse=True)
    size, best = min(nodes, len(values)), math.fsum(values[:nodes])

    def rule(value: Any) -> str:
        paths = [tuple(path) for path in value]
        if len(paths) != size or len(set(paths)) != size:
            return f"expected {size} different paths, got {len(set(paths))}"
        for path in paths:
            if not path or not all(type(rank) is int for rank in path):
                return f"a path is a list of ranks, at least one; {list(path)!r} is not"
            if len(path) > len(accuracy) or not all(0 <= r < len(accuracy[d]) for d, r in enumerate(path)):
                return f"{list(path)} asks for a head or a rank that is not there"
            if path[:-1] and path[:-1] not in paths:
                return f"{list(path)} is there without its parent {list(path[:-1])}"
        found = math.fsum(_value(path, accuracy) for path in paths)
        return (
            "" if math.isclose(found, best, abs_tol=1e-9) else f"accepts {found:.4f} on average; {best:.4f} can be had"
        )

    return holds(rule)


def _all_paths(accuracy: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    return [path for depth in range(len(accuracy)) for path in product(*(range(len(a)) for a in accuracy[: depth + 1]))]


def _value(path: Sequence[int], accuracy: Sequence[Sequence[float]]) -> float:
    return math.prod(accuracy[depth][rank] for depth, rank in enumerate(path))


def tree_case(name: str, accuracy: list[list[float]], nodes: int) -> Case:
    return Case(name, best_paths(accuracy, nodes), (accuracy, nodes))


CHOOSE_TREE = (
    tree_case("sure heads: a chain", [[0.9, 0.05], [0.85, 0.05], [0.8, 0.05]], 3),
    tree_case("unsure heads: breadth first", [[0.4, 0.35], [0.3, 0.1]], 2),
    tree_case("depth and breadth", [[0.8, 0.1, 0.05], [0.6, 0.2, 0.1], [0.5, 0.2, 0.1]], 6),
    tree_case("one node", [[0.7, 0.1]], 1),
)

WALK = (
    Case("nothing is ever right: one token a round", equals(1.0), ([[0, 0, 0, 0]],)),
    Case("rounds jump over what they accept", equals(2.0), ([[1, 0, 1, 0]],)),
    Case("easy text and hard text", equals(10 / 6), ([[4, 3, 2, 1, 0, 0, 0, 0, 0, 0]],)),
    Case("two answers: all tokens over all rounds", equals(5 / 3), ([[2, 1, 0], [0, 0]],)),
)

SPEC = LabSpec(
    id="3.3.4",
    title="Medusa: Heads, Trees and Verification",
    engines=("vllm",),
    requirements=(
        methods_measured("speedup", LOOP, ("medusa",), workloads=("seen-like", "slot-bearing", "off-domain")),
        methods_measured("acceptance_length", LOOP, ("medusa",)),
        same_tokens(LOOP, ("medusa",)),
        methods_measured("speedup", "vllm", ("medusa",), (1, 8, 16)),
        same_tokens("vllm", ("medusa",)),
        acceptance_agrees("vllm", "medusa", 0.05),
        witnessed("completion_tokens", 0.02, 1),
        none_failed(),
    ),
    cases={"accept": ACCEPT, "tree_mask": TREE_MASK, "choose_tree": CHOOSE_TREE, "walk": WALK},
)
