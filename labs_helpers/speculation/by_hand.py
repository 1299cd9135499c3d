"""The small functions of the labs, in plain Python: used where a student's own is not written yet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from labs_helpers.speculation import tree as trees
from labs_helpers.speculation.tree import Tree
from labs_helpers.speculation.verify import greedy_accept


def accept(parents: Sequence[int], drafted: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Nodes of the longest path on which every draft is what the model chose after its parent, without the root."""
    return list(greedy_accept(Tree(tuple(parents)), drafted, chosen).path[1:])


def tree_mask(parents: Sequence[int]) -> list[list[int]]:
    """Which nodes (columns) each node (row) sees: itself and its ancestors."""
    return [list(row) for row in Tree(tuple(parents)).mask]


def choose_tree(accuracy: Sequence[Sequence[float]], nodes: int) -> list[list[int]]:
    """The paths of ranks of the best tree with so many drafts."""
    tree = trees.choose_tree(accuracy, nodes)
    return [[tree.ranks[node] for node in path[1:]] for path in tree.paths[1:]]


def walk(matches: Sequence[Sequence[int]]) -> float:
    """Tokens per round over all answers, where a round that begins at a place accepts as many drafts as stand there."""
    rounds = 0
    for answer in matches:
        place = 0
        while place < len(answer):
            place += 1 + answer[place]
            rounds += 1
    return sum(map(len, matches)) / rounds


def expected_length(rates: Sequence[float]) -> float:
    """New tokens per round of a chain: `rates[i]` is how often draft i is accepted where all before it were."""
    return 1.0 + sum(accumulate(rates, mul))


def sample_round(
    drafted: Sequence[int], q: Sequence[Sequence[float]], p: Sequence[Sequence[float]], draws: Sequence[float]
) -> list[int]:
    """Accepted drafts and one more token, distributed as the model's own (arXiv 2211.17192, algorithm 1).

    Args:
        drafted: tokens, each drawn from the distribution in `q` at its place.
        p: the model's distributions at the same places, and one after the last draft.
        draws: uniform numbers from 0 to 1, one for each draft that is looked at, then one for the last token.
    """
    for i, token in enumerate(drafted):
        if draws[i] * q[i][token] >= p[i][token]:
            left = [max(0.0, wanted - offered) for wanted, offered in zip(p[i], q[i], strict=True)]
            return [*drafted[:i], pick([share / sum(left) for share in left], draws[i + 1])]
    return [*drafted, pick(p[len(drafted)], draws[len(drafted)])]


def pick(distribution: Sequence[float], draw: float) -> int:
    """The token in whose part of 0 to 1 the draw lies."""
    for token, end in enumerate(accumulate(distribution)):
        if draw < end:
            return token
    return max(token for token, share in enumerate(distribution) if share > 0)  # the sum was rounded to just below 1
