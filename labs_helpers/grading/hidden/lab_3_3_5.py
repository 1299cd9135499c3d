"""Hidden cases of lab 3.3.5: rounds worked out in whole fractions, and distributions over every draw there is."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import product

from labs_helpers.exercises import Case, equals
from labs_helpers.syllabus.lab_3_3_5 import Distribution, distributed_as, distribution_case, grid

PARTS = 64
"""Probabilities and draws of the exact cases are multiples of 1/64 and odd multiples of 1/4096: no rounding, and no
draw on a threshold."""


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1 << 40)


def _first_above(distribution: list[Fraction], draw: Fraction) -> int:
    """The token in whose part of 0 to 1 the draw lies."""
    ends = [sum(distribution[: token + 1], Fraction()) for token in range(len(distribution))]
    return min(token for token, end in enumerate(ends) if draw < end)


def new_tokens(drafted: list[int], q: list[Distribution], p: list[Distribution], draws: list[float]) -> list[int]:
    """One round, in exact arithmetic: the first draft that is refused, found from the back."""
    refused = [i for i, token in enumerate(drafted)
               if _fraction(draws[i]) * _fraction(q[i][token]) >= _fraction(p[i][token])]  # fmt: skip
    at = min(refused, default=len(drafted))
    wanted = [_fraction(share) for share in p[at]]
    if refused:
        rest = [max(Fraction(), a - _fraction(b)) for a, b in zip(wanted, q[at], strict=True)]
        wanted = [share / sum(rest) for share in rest]
        return [*drafted[:at], _first_above(wanted, _fraction(draws[at + 1]))]
    return [*drafted, _first_above(wanted, _fraction(draws[at]))]


def round_case(name: str, drafted: list[int], q: list[Distribution], p: list[Distribution], draws: list[float]) -> Case:
    return Case(name, equals(new_tokens(drafted, q, p, draws)), (drafted, q, p, draws))


def _random_distribution(draw: random.Random, tokens: int) -> Distribution:
    cuts = sorted(draw.randint(0, PARTS) for _ in range(tokens - 1))
    return [(b - a) / PARTS for a, b in zip([0, *cuts], [*cuts, PARTS], strict=True)]


def _random_rounds(name: str, seed: int, rounds: int, tokens: int, longest: int) -> Case:
    draw = random.Random(seed)  # noqa: S311
    asked = []
    for _ in range(rounds):
        q = [_random_distribution(draw, tokens) for _ in range(draw.randint(1, longest))]
        p = [[0.5 * a + 0.5 * b for a, b in zip(_random_distribution(draw, tokens), likes, strict=True)]
             for likes in [*q, _random_distribution(draw, tokens)]]  # fmt: skip
        drafted = [draw.choices(range(tokens), share)[0] for share in q]
        draws = [(2 * draw.randrange(2048) + 1) / 4096 for _ in range(len(q) + 1)]
        asked.append((drafted, q, p, draws))
    return Case(name, equals([new_tokens(*one) for one in asked]), trace=tuple(("", one) for one in asked))


def second_place_case(name: str, q: list[Distribution], p: list[Distribution], fine: tuple[int, int, int]) -> Case:
    """Two drafts. Where the first was accepted, the second token must come out as in p[1]."""
    rounds = [
        (a, b, u, v, w)
        for a, b in product(range(len(q[0])), range(len(q[1])))
        for u, v, w in product(*(grid(n) for n in fine))
        if q[0][a] > 0 and q[1][b] > 0 and u * q[0][a] < p[0][a]
    ]
    return Case(
        name,
        distributed_as(p[1], [q[0][a] * q[1][b] for a, b, _, _, _ in rounds], place=1),
        trace=tuple(("", ([a, b], q, p, [u, v, w])) for a, b, u, v, w in rounds),
    )


SURE = [0.0, 1.0, 0.0]

SAMPLE_ROUND = (
    round_case("no draft: the target's own token", [], [], [[0.25, 0.5, 0.25]], [0.8]),
    round_case("all three are taken, and a fourth token comes from the target", [1, 1, 1], [[0.5, 0.5]] * 3,
               [[0.25, 0.75]] * 3 + [[0.5, 0.5]], [0.9, 0.9, 0.9, 0.6]),
    round_case("the second of three is refused: nothing after it counts", [1, 0, 1], [[0.75, 0.25]] * 3,
               [[0.25, 0.75], [0.25, 0.75], [0.0, 1.0], [1.0, 0.0]], [0.9, 0.5, 0.9, 0.1]),
    round_case("a draft that is half as likely is taken in half of the cases", [0], [[0.5, 0.25, 0.25]],
               [[0.25, 0.25, 0.5], SURE], [0.49, 0.3]),
    round_case("and refused in the other half", [0], [[0.5, 0.25, 0.25]], [[0.25, 0.25, 0.5], SURE], [0.51, 0.3]),
    round_case("a refused token may come back only where the target wants more of it than the draft", [0],
               [[0.5, 0.25, 0.25, 0.0]], [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], [0.75, 0.01]),
    round_case("draft and target agree: always taken", [2], [[0.25, 0.25, 0.5]], [[0.25, 0.25, 0.5], SURE],
               [0.999, 0.999]),
    round_case("a greedy draft, held against its certainty", [1], [SURE], [[0.25, 0.5, 0.25], SURE], [0.75, 0.6]),
    distribution_case("over all draws, four tokens", [0.4, 0.4, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], (4, 5)),
    distribution_case("over all draws, where the draft never says what the target wants",
                      [0.5, 0.5, 0.0], [0.25, 0.25, 0.5], (2, 4)),
    distribution_case("over all draws, a draft that is sure", [1.0, 0.0, 0.0], [0.5, 0.3, 0.2], (2, 5)),
    distribution_case("over all draws, a draft of chance alone", [0.25] * 4, [0.7, 0.1, 0.1, 0.1], (5, 3)),
    second_place_case("over all draws, the token after an accepted one",
                      [[0.5, 0.5, 0.0], [0.5, 0.3, 0.2]], [[0.25, 0.5, 0.25], [0.2, 0.3, 0.5], SURE], (2, 10, 3)),
    _random_rounds("any rounds, three tokens", 1, 60, 3, 4),
    _random_rounds("any rounds, eight tokens", 2, 60, 8, 6),
)  # fmt: skip


def tokens_of_all_rounds(rates: list[float]) -> float:
    """The mean over how a round can end: after each number of drafts, with its probability."""
    ends = [math.prod(rates[:n]) * (1 - rates[n]) * (n + 1) for n in range(len(rates))]
    return math.fsum([*ends, math.prod(rates) * (len(rates) + 1)])


def length_case(name: str, rates: list[float]) -> Case:
    return Case(name, equals(tokens_of_all_rounds(rates)), (rates,))


EXPECTED_LENGTH = (
    length_case("drafts that are always right", [1.0] * 7),
    length_case("drafts that are never right", [0.0, 1.0, 1.0]),
    length_case("one that never is, in the middle", [0.9, 0.8, 0.0, 0.9]),
    length_case("a rate that rises again", [0.6, 0.9, 0.7, 0.95]),
    length_case("five drafts, equal rates", [0.8] * 5),
    length_case("a long chain", [0.97] * 60),
)

CASES = {"sample_round": SAMPLE_ROUND, "expected_length": EXPECTED_LENGTH}
