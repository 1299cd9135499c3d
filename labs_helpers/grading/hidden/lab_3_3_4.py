"""Hidden cases of lab 3.3.4: each answer is found by trying everything, not by the way an exercise suggests."""

from __future__ import annotations

import random

from labs_helpers.exercises import Case, equals
from labs_helpers.syllabus.lab_3_3_4 import is_mask, tree_case


def _way(parents: list[int], node: int) -> list[int]:
    """The nodes from the root's child down to this one."""
    return [*_way(parents, parents[node]), node] if node > 0 else []


def longest(parents: list[int], drafted: list[int], chosen: list[int]) -> list[int]:
    """Every path from the root, held against the target one by one; the first of the longest that are right."""
    ways = [_way(parents, node) for node in range(len(parents))]
    right = [way for way in ways if all(drafted[node] == chosen[parents[node]] for node in way)]
    return max(right, key=len)


def accept_case(name: str, parents: list[int], drafted: list[int], chosen: list[int]) -> Case:
    return Case(name, equals(longest(parents, drafted, chosen)), (parents, drafted, chosen))


def _random_tree(draw: random.Random, size: int, deep: bool = False) -> list[int]:
    return [-1, *(draw.randrange(max(0, node - 3) if deep else 0, node) for node in range(1, size))]


def _random_accept(name: str, seed: int, size: int, tokens: int, deep: bool = False) -> Case:
    draw = random.Random(seed)  # noqa: S311
    parents = _random_tree(draw, size, deep)
    drafted, chosen = ([draw.randrange(tokens) for _ in range(size)] for _ in range(2))
    return accept_case(name, parents, drafted, chosen)


ACCEPT = (
    accept_case("no draft at all", [-1], [7], [3]),
    accept_case("a chain that is right to its end", [-1, 0, 1, 2], [9, 1, 2, 3], [1, 2, 3, 4]),
    accept_case("the root's own token is no draft", [-1, 0], [5, 6], [5, 5]),
    accept_case("token 0 is a token", [-1, 0, 1], [3, 0, 0], [0, 0, 0]),
    accept_case("a right child under a wrong parent, beside a right one",
                [-1, 0, 0, 1, 1, 2], [7, 1, 2, 3, 4, 5], [2, 3, 9, 0, 0, 0]),
    accept_case("nodes of one branch that lie far apart", [-1, 0, 0, 0, 3, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7],
                [3, 0, 0, 4, 6, 0, 7, 1]),
    accept_case("the same token drafted twice: only one of the two leads on",
                [-1, 0, 0, 2, 1, 3], [7, 4, 4, 5, 6, 8], [4, 9, 5, 8, 0, 0]),
    accept_case("two paths of the same length: the one whose last node comes first",
                [-1, 0, 0, 2, 1], [7, 4, 4, 5, 5], [4, 5, 5, 0, 0]),
    _random_accept("any tree, two tokens", 1, 40, 2),
    _random_accept("any tree, three tokens", 2, 60, 3),
    _random_accept("a deep one", 3, 60, 2, deep=True),
    _random_accept("a deeper one", 4, 200, 1, deep=True),
)  # fmt: skip


def mask(parents: list[int]) -> list[list[int]]:
    return [[int(seen == node or seen == 0 or seen in _way(parents, node)) for seen in range(len(parents))]
            for node in range(len(parents))]  # fmt: skip


def mask_case(name: str, parents: list[int]) -> Case:
    return Case(name, is_mask(mask(parents)), (parents,))


TREE_MASK = (
    mask_case("a long chain", list(range(-1, 19))),
    mask_case("a star", [-1, *[0] * 9]),
    mask_case("branches that take turns", [-1, 0, 0, 1, 2, 3, 4, 5, 6]),
    mask_case("a branch at every depth", [-1, 0, 0, 1, 1, 3, 3, 5, 5]),
    mask_case("any tree", _random_tree(random.Random(5), 40)),  # noqa: S311
    mask_case("a deep one", _random_tree(random.Random(6), 60, deep=True)),  # noqa: S311
)


def _random_accuracy(seed: int, heads: int, ranks: int) -> list[list[float]]:
    draw = random.Random(seed)  # noqa: S311
    rows = []
    for _ in range(heads):
        shares = sorted((draw.random() ** 3 for _ in range(ranks)), reverse=True)
        rows.append([round(share / sum(shares) * draw.uniform(0.6, 0.99), 6) for share in shares])
    return rows


CHOOSE_TREE = (
    tree_case("more nodes than there are", [[0.6, 0.3], [0.5, 0.4]], 50),
    tree_case("one head", [[0.5, 0.2, 0.1, 0.05]], 3),
    tree_case("the best node need not hang below the best node",
              [[0.5, 0.45], [0.5, 0.1], [0.1, 0.05]], 4),
    tree_case("a rank that is better than the one before it", [[0.2, 0.5, 0.1], [0.3, 0.6]], 4),
    tree_case("a head that is always right", [[1.0, 0.0], [0.7, 0.2], [1.0, 0.0]], 5),
    tree_case("a head that is never right", [[0.6, 0.3, 0.1], [0.0, 0.0, 0.0]], 3),
    tree_case("heads with different numbers of candidates", [[0.7, 0.2, 0.05], [0.8], [0.5, 0.3]], 7),
    tree_case("four heads, 24 nodes", _random_accuracy(1, 4, 6), 24),
    tree_case("six heads, 63 nodes", _random_accuracy(2, 6, 4), 63),
)  # fmt: skip


def tokens_per_round(matches: list[list[int]]) -> float:
    """Token by token: each is either covered by the round that runs, or begins one."""
    rounds = 0
    for answer in matches:
        covered = 0
        for found in answer:
            if covered == 0:
                rounds, covered = rounds + 1, 1 + found
            covered -= 1
    return sum(map(len, matches)) / rounds


def walk_case(name: str, matches: list[list[int]]) -> Case:
    return Case(name, equals(tokens_per_round(matches)), (matches,))


def _random_matches(seed: int, answers: int, most: int) -> list[list[int]]:
    draw = random.Random(seed)  # noqa: S311
    return [[draw.randint(0, most) for _ in range(draw.randint(1, 60))] for _ in range(answers)]


WALK = (
    walk_case("one token, one round", [[0]]),
    walk_case("drafts past the end are no tokens of the answer", [[5, 0, 0]]),
    walk_case("they are none of the next answer either", [[9, 9], [0, 0, 0]]),
    walk_case("a long answer weighs more than a short one", [[0], [3] * 40]),
    walk_case("an answer without a token", [[], [1, 0, 0]]),
    walk_case("any answers", _random_matches(1, 20, 4)),
    walk_case("any answers, six heads", _random_matches(2, 40, 6)),
)

CASES = {"accept": ACCEPT, "tree_mask": TREE_MASK, "choose_tree": CHOOSE_TREE, "walk": WALK}
