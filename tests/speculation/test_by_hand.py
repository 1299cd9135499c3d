"""The labs' own small functions pass every case of the exercises they stand in for."""

from __future__ import annotations

import pytest

from labs_helpers import syllabus
from labs_helpers.exercises import ask, verdict
from labs_helpers.grading import rubric
from labs_helpers.speculation import by_hand

STANDS_IN = [
    ("3.3.4", "tree_mask", by_hand.tree_mask),
    ("3.3.4", "walk", by_hand.walk),
    ("3.3.5", "sample_round", by_hand.sample_round),
    ("3.3.5", "expected_length", by_hand.expected_length),
]


@pytest.mark.parametrize(
    ("lab", "exercise", "function"), STANDS_IN, ids=lambda value: getattr(value, "__name__", value)
)
def test_it_passes_every_case(lab, exercise, function):
    wrong = [c.name for c, _ in rubric.load(syllabus.find(lab)).cases(exercise) if verdict(c, ask(function, c)) != ""]
    assert wrong == []


def test_acceptance_is_as_asked_where_siblings_differ():
    """In a real tree they always do; the exercise asks for more."""
    cases = rubric.load(syllabus.find("3.3.4")).cases("accept")
    apart = [c for c, _ in cases if len({(p, t) for p, t in zip(c.args[0], c.args[1], strict=True)}) == len(c.args[0])]
    assert len(apart) > 8
    assert [c.name for c in apart if verdict(c, ask(by_hand.accept, c)) != ""] == []
