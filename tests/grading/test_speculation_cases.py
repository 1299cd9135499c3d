"""The cases of labs 3.3.4 and 3.3.5 tell right from wrong: plausible mistakes fail, other right ways pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from labs_helpers import syllabus
from labs_helpers.exercises import ask, verdict
from labs_helpers.grading import rubric


def failures(lab: str, exercise: str, function: Callable[..., Any]) -> list[str]:
    """Names of the cases, visible and hidden, that this function fails."""
    graded = rubric.load(syllabus.find(lab))
    return [case.name for case, _ in graded.cases(exercise) if verdict(case, ask(function, case)) != ""]


# -- accept ------------------------------------------------------------------------------------------------------


def accept(parents, drafted, chosen):
    """By recursion, from the leaves."""

    def down(node):
        ways = [[child, *down(child)] for child in range(node + 1, len(parents))
                if parents[child] == node and drafted[child] == chosen[node]]  # fmt: skip
        return max(ways, key=lambda way: (len(way), -way[-1]), default=[])

    return down(0)


def accept_first_child(parents, drafted, chosen):
    """Follows the first right child and never looks back."""
    path, node = [], 0
    for child in range(1, len(parents)):
        if parents[child] == node and drafted[child] == chosen[node]:
            path.append(child)
            node = child
    return path


def accept_with_root(parents, drafted, chosen):
    return [0, *accept(parents, drafted, chosen)]


def accept_orphans(parents, drafted, chosen):
    """Does not ask whether the parent was right."""
    right = {node for node in range(1, len(parents)) if drafted[node] == chosen[parents[node]]}
    paths = []
    for node in right:
        path = [node]
        while parents[path[0]] in right:
            path.insert(0, parents[path[0]])
        paths.append(path)
    return max(paths, key=lambda path: (len(path), -path[-1]), default=[])


def accept_last_of_equals(parents, drafted, chosen):
    right, best = {0: []}, []
    for node in range(1, len(parents)):
        if parents[node] in right and drafted[node] == chosen[parents[node]]:
            right[node] = [*right[parents[node]], node]
            best = right[node] if len(right[node]) >= len(best) else best
    return best


# -- tree_mask ---------------------------------------------------------------------------------------------------


def mask(parents):
    """Of booleans, and by walking up."""
    rows = []
    for node in range(len(parents)):
        seen = set()
        while node >= 0:
            seen.add(node)
            node = parents[node]
        rows.append([other in seen for other in range(len(parents))])
    return rows


def causal_mask(parents):
    return [[int(column <= row) for column in range(len(parents))] for row in range(len(parents))]


def mask_without_root(parents):
    return [[0 if column == 0 and row else value for column, value in enumerate(values)]
            for row, values in enumerate(mask(parents))]  # fmt: skip


def mask_of_parents_only(parents):
    return [[int(column in (row, parents[row])) for column in range(len(parents))] for row in range(len(parents))]


# -- choose_tree -------------------------------------------------------------------------------------------------


def choose_tree(accuracy, nodes):
    """By looking at every path there is."""
    paths = [list(path) for depth in range(len(accuracy))
             for path in itertools.product(*(range(len(row)) for row in accuracy[: depth + 1]))]  # fmt: skip
    return sorted(paths, key=lambda path: (-math.prod(accuracy[d][r] for d, r in enumerate(path)), len(path)))[:nodes]


def choose_chain(accuracy, nodes):
    return [[0] * (depth + 1) for depth in range(min(nodes, len(accuracy)))]


def choose_breadth_first(accuracy, nodes):
    return sorted(choose_tree(accuracy, 10**6), key=lambda path: (len(path), path))[:nodes]


def choose_by_own_accuracy(accuracy, nodes):
    """Each guess by itself, not the path that leads to it."""
    chosen = []
    while len(chosen) < nodes:
        opened = [[*path, rank] for path in [[], *chosen] if len(path) < len(accuracy)
                  for rank in range(len(accuracy[len(path)])) if [*path, rank] not in chosen]  # fmt: skip
        if not opened:
            break
        chosen.append(max(opened, key=lambda path: accuracy[len(path) - 1][path[-1]]))
    return chosen


# -- walk --------------------------------------------------------------------------------------------------------


def walk(matches):
    """With an iterator that is moved on."""
    rounds = 0
    for answer in matches:
        places = iter(answer)
        for found in places:
            rounds += 1
            next(itertools.islice(places, found, found), None)
    return sum(len(answer) for answer in matches) / rounds


def mean_over_places(matches):
    places = [found for answer in matches for found in answer]
    return 1 + sum(places) / len(places)


def mean_over_answers(matches):
    return sum(walk([answer]) for answer in matches if answer) / len([answer for answer in matches if answer])


def walk_past_the_end(matches):
    tokens = rounds = 0
    for answer in matches:
        t = 0
        while t < len(answer):
            tokens, rounds, t = tokens + 1 + answer[t], rounds + 1, t + 1 + answer[t]
    return tokens / rounds


# -- sample_round ------------------------------------------------------------------------------------------------


def pick(distribution, draw):
    ends = list(itertools.accumulate(distribution))
    return next((token for token, end in enumerate(ends) if draw < end), len(ends) - 1)


def sampler(accepts=None, residual=None, bonus=True):
    """A round that is right but for what is given."""
    accepts = accepts or (lambda draw, p, q: draw < min(1.0, p / q))
    residual = residual or (lambda p, q: [max(0.0, a - b) for a, b in zip(p, q, strict=True)])

    def sample_round(drafted, q, p, draws):
        for i, token in enumerate(drafted):
            if not accepts(draws[i], p[i][token], q[i][token]):
                left = residual(p[i], q[i])
                return [*drafted[:i], pick([share / sum(left) for share in left], draws[i + 1])]
        return [*drafted, pick(p[-1], draws[len(drafted)])] if bonus else list(drafted)

    return sample_round


def wrong_draw(drafted, q, p, draws):
    """Takes the last number for the last token, also after an early refusal."""
    right = sampler()(drafted, q, p, [*draws[:-1], draws[-1]])
    if len(right) <= len(drafted):
        at = len(right) - 1
        left = [max(0.0, a - b) for a, b in zip(p[at], q[at], strict=True)]
        return [*right[:-1], pick([share / sum(left) for share in left], draws[-1])]
    return right


SAMPLERS = {
    "refused drafts are drawn anew from p": sampler(residual=lambda p, q: p),
    "the residual is the absolute difference": sampler(
        residual=lambda p, q: [abs(a - b) for a, b in zip(p, q, strict=True)]
    ),
    "the residual only leaves out the refused token": sampler(
        residual=lambda p, q: [0.0 if b > a else a for a, b in zip(p, q, strict=True)]
    ),
    "accepts by p alone": sampler(accepts=lambda draw, p, q: draw < p),
    "accepts by q / p": sampler(accepts=lambda draw, p, q: p > 0 and draw < q / p),
    "accepts only what the target prefers": sampler(accepts=lambda draw, p, q: p >= q),
    "accepts on equality": sampler(accepts=lambda draw, p, q: draw <= p / q),
    "no token after the last draft": sampler(bonus=False),
    "the last number for the last token": wrong_draw,
}

# -- expected_length ---------------------------------------------------------------------------------------------


def expected_length(rates):
    """From the back."""
    length = 0.0
    for rate in reversed(rates):
        length = rate * (1 + length)
    return 1 + length


RIGHT = [
    ("3.3.4", "accept", accept),
    ("3.3.4", "tree_mask", mask),
    ("3.3.4", "choose_tree", choose_tree),
    ("3.3.4", "walk", walk),
    ("3.3.5", "sample_round", sampler()),
    ("3.3.5", "expected_length", expected_length),
]
WRONG = [
    *(("3.3.4", "accept", f)
      for f in (accept_first_child, accept_with_root, accept_orphans, accept_last_of_equals)),
    *(("3.3.4", "tree_mask", f) for f in (causal_mask, mask_without_root, mask_of_parents_only)),
    *(("3.3.4", "choose_tree", f) for f in (choose_chain, choose_breadth_first, choose_by_own_accuracy)),
    *(("3.3.4", "walk", f) for f in (mean_over_places, mean_over_answers, walk_past_the_end)),
    *(("3.3.5", "sample_round", f) for f in SAMPLERS.values()),
    ("3.3.5", "expected_length", lambda rates: 1 + sum(rates)),
    ("3.3.5", "expected_length", lambda rates: 1 + math.prod(rates) * len(rates)),
    ("3.3.5", "expected_length", lambda rates: expected_length(rates) - 1),
]  # fmt: skip


@pytest.mark.parametrize(("lab", "exercise", "function"), RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_another_right_way_passes_every_case(lab: str, exercise: str, function: Callable[..., Any]) -> None:
    assert failures(lab, exercise, function) == []


@pytest.mark.parametrize(("lab", "exercise", "function"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_a_plausible_mistake_fails(lab: str, exercise: str, function: Callable[..., Any]) -> None:
    assert failures(lab, exercise, function)
