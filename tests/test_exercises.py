"""Exercise cases: what a student's function returns is judged, whatever it returns."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.exercises import Case, Outcome, ask, check, equals, holds, raises, verdict

DOUBLE = (Case("two", equals(4), (2,)), Case("nothing", raises("TypeError"), (None,)))


def double(x):
    return x * 2


def test_a_right_function_passes_every_case():
    assert check("double", double, DOUBLE).status == "passed"


def test_the_first_failing_case_is_named_with_expected_and_found():
    outcome = check("double", lambda x: x + 3, DOUBLE)
    assert outcome.status == "failed"
    assert outcome.message == "two: expected 4, got 5"


@pytest.mark.parametrize("unfinished", [None, ..., lambda x: ..., lambda x: [1, ...]])
def test_an_unfinished_exercise_is_open_not_wrong(unfinished):
    assert check("double", unfinished, DOUBLE).status == "open"


def test_a_function_that_raises_is_a_failed_case_not_a_crash():
    def broken(x):
        raise KeyError("no such thing")

    outcome = check("double", broken, DOUBLE)
    assert outcome.status == "failed"
    assert "KeyError" in outcome.message


def test_a_function_cannot_change_the_arguments_of_the_next_case():
    shared = ([1, 2, 3],)
    cases = (Case("first", equals(6), shared), Case("again", equals(6), shared))

    def consuming(values):
        total = 0
        while values:
            total += values.pop()
        return total

    assert check("sum", consuming, cases).status == "passed"


def test_an_object_that_claims_to_equal_everything_is_not_right():
    class Liar:
        def __eq__(self, other):
            return True

        __hash__ = None

    outcome = ask(lambda x: Liar(), DOUBLE[0])
    assert outcome.error == "TypeError"
    assert verdict(DOUBLE[0], outcome)


def test_a_function_can_be_called_many_times_in_one_case():
    case = Case("all at once", equals([2, 4, 6]), trace=tuple(("", ([n],)) for n in (1, 2, 3)))
    assert verdict(case, ask(lambda values: 2 * values.pop(), case)) == ""
    assert verdict(case, ask(lambda values: 2 * values.pop(), case)) == "", "its arguments are its own each time"
    assert verdict(case, ask(lambda values: ..., case)) == "open"
    assert "TypeError" in verdict(case, ask(lambda: 2, case))


def test_a_class_is_driven_by_its_trace():
    class Stack:
        def __init__(self):
            self.items = []

        def push(self, item):
            self.items.append(item)

        def pop(self):
            return self.items.pop()

    case = Case("last in, first out", equals([None, None, 2]), (), (("push", (1,)), ("push", (2,)), ("pop", ())))
    assert verdict(case, ask(Stack, case)) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, 1), (1, True), ("1", 1), (None, 0), ([1, 2], [1, 2, 3]), ({"a": 1}, {"a": 1, "b": 2}), (math.nan, 1.0)],
)
def test_values_of_another_kind_are_not_equal(value, expected):
    assert equals(expected)(Outcome(value=value))


def test_numbers_of_numpy_count_as_numbers():
    assert verdict(Case("mean", equals(2.0)), ask(lambda: np.mean([1.0, 3.0]), Case("mean", equals(2.0)))) == ""
    assert ask(lambda: Fraction(1, 2), Case("half", equals(0.5))).error == "TypeError"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_json_value_equals_itself(value):
    case = Case("same", equals(value))
    assert verdict(case, ask(lambda: value, case)) == ""


def test_a_rule_that_meets_the_wrong_form_says_so():
    judge = holds(lambda value: "" if value["x"] > 1 else "x is too small")
    assert judge(Outcome(value={"x": 2})) == ""
    assert judge(Outcome(value={"x": 0})) == "x is too small"
    assert "wrong form" in judge(Outcome(value=[1]))
