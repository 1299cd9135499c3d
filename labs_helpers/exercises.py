"""Exercise cases: what is asked of a student's function, and how the answer is judged.

A case is data plus a judge. The function under test only ever *produces* an outcome, which is plain JSON; the judge
sees nothing else. So the same case serves two places: `lab.check` in the student's own kernel (a hint), and grading,
where the function runs in an isolated process and the judge outside it (the score).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs_helpers.results import CheckOutcome

OPEN = "open"
"""What an unfinished exercise (one that still returns `...`) is turned into."""


@dataclass(frozen=True)
class Outcome:
    """What came of calling a student's function: a JSON value, or the error it raised."""

    value: Any = None
    error: str = ""
    message: str = ""
    is_open: bool = False


Judge = Callable[[Outcome], str]
"""Returns '' when the outcome is right, else one sentence for the student."""


@dataclass(frozen=True)
class Case:
    """One question to a student's function.

    Without `trace`, the function is called once with `args`. With `trace`, the exercise is a class: an instance is
    made with `args`, then each `(method, arguments)` is called in turn; the outcome is the list of what they returned.
    Where every method is '', the function itself is called each time: for what only many calls show, such as the
    distribution of its results. `args` and `trace` hold JSON values only (no tuples: they would come back as lists).
    """

    name: str
    judge: Judge
    args: tuple[Any, ...] = ()
    trace: tuple[tuple[str, tuple[Any, ...]], ...] | None = None


def ask(target: Any, case: Case) -> Outcome:
    """Call a student's function or class as the case says. Never raises; what it returns is plain JSON."""
    return ask_raw(target, *json.loads(json.dumps([case.args, case.trace])))


def ask_raw(target: Any, args: Sequence[Any], trace: Sequence[tuple[str, Sequence[Any]]] | None) -> Outcome:
    """`ask` for a caller that has the arguments but not the judge, such as the isolated process of grading."""
    try:
        if trace is None:
            value = target(*args)
        elif not any(method for method, _ in trace):
            value = [target(*arguments) for _, arguments in trace]
        else:
            instance = target(*args)
            value = [getattr(instance, method)(*arguments) for method, arguments in trace]
        if value is ... or (isinstance(value, list) and any(v is ... for v in value)):
            return Outcome(is_open=True)
        return Outcome(value=_plain(value))
    except Exception as error:
        return Outcome(error=type(error).__name__, message=str(error)[:300])


def _plain(value: Any) -> Any:
    """The value as JSON would carry it; numbers of numpy and torch become numbers, tuples become lists."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"the result is a {type(value).__name__}; return a number, a text, a list or a dict")


def verdict(case: Case, outcome: Outcome) -> str:
    """'' when right, `OPEN` when unfinished, else what is wrong."""
    return OPEN if outcome.is_open else case.judge(outcome)


def check(exercise: str, target: Any, cases: Sequence[Case]) -> CheckOutcome:
    """Run the cases in this process and say what came of them: the first failing case, or that all passed."""
    from labs_helpers.results import CheckOutcome

    if target is None or target is ...:
        return CheckOutcome(exercise=exercise, status="open", message="not started")
    for case in cases:
        found = verdict(case, ask(target, case))
        if found == OPEN:
            return CheckOutcome(exercise=exercise, status="open", message="returns `...`: nothing to check yet")
        if found:
            return CheckOutcome(exercise=exercise, status="failed", message=f"{case.name}: {found}")
    return CheckOutcome(exercise=exercise, status="passed", message=f"{len(cases)} visible cases")


# -- judges ------------------------------------------------------------------------------------------------------


def equals(expected: Any, rel: float = 1e-6, abs_: float = 1e-9) -> Judge:
    """Right when the value is `expected`, numbers within a tolerance, at any depth."""

    def judge(outcome: Outcome) -> str:
        if outcome.error:
            return f"raised {outcome.error}: {outcome.message}"
        return "" if _close(outcome.value, expected, rel, abs_) else f"expected {expected!r}, got {outcome.value!r}"

    return judge


def raises(kind: str) -> Judge:
    """Right when the call raised an error of this type, e.g. 'ValueError'."""

    def judge(outcome: Outcome) -> str:
        if not outcome.error:
            return f"expected {kind}, but it returned {outcome.value!r}"
        return "" if outcome.error == kind else f"expected {kind}, it raised {outcome.error}: {outcome.message}"

    return judge


def holds(rule: Callable[[Any], str]) -> Judge:
    """Right when `rule(value)` returns ''; for properties that have more than one right answer."""

    def judge(outcome: Outcome) -> str:
        if outcome.error:
            return f"raised {outcome.error}: {outcome.message}"
        try:
            return rule(outcome.value)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            return f"the result {outcome.value!r} has the wrong form ({error})"

    return judge


def _close(value: Any, expected: Any, rel: float, abs_: float) -> bool:
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return type(value) is type(expected) and value == expected
    if isinstance(expected, int | float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isclose(value, expected, rel_tol=rel, abs_tol=abs_)
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(_close(value[k], expected[k], rel, abs_) for k in expected)
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(_close(a, b, rel, abs_) for a, b in zip(value, expected, strict=True))
        )
    return False
