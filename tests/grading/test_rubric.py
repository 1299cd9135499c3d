"""Every lab's rubric adds up, its hidden cases are right, and they are not the visible ones again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs_helpers import course, syllabus
from labs_helpers.errors import LabsError
from labs_helpers.exercises import ask, verdict
from labs_helpers.grading import rubric
from labs_helpers.grading.rubric import Rubric
from labs_helpers.syllabus import Entry

BUILT = syllabus.built()


def functions(notebook: Any, names: list[str]) -> dict[str, Any]:
    """What the exercise cells define."""
    from labs_helpers.grading.assemble import helpers_only, imports_for

    sources = [helpers_only(c.source) for c in notebook.cells if c.id.removeprefix("exercise-") in names]
    space: dict[str, Any] = {}
    for text in (*imports_for(notebook, sources), *sources):
        exec(text, space)
    return space


@pytest.mark.parametrize("entry", BUILT, ids=lambda e: e.id)
def test_the_rubric_covers_every_exercise_and_names_real_questions(entry: Entry) -> None:
    lab = rubric.load(entry)
    student, _ = course.build(entry)
    names = {cell.id for cell in student.cells}
    assert set(lab.rubric.exercises) == set(lab.spec.cases)
    assert {f"question-{name}" for name in lab.rubric.questions} == {n for n in names if n.startswith("question-")}


@pytest.mark.parametrize("entry", BUILT, ids=lambda e: e.id)
def test_the_solution_passes_every_case_and_the_stub_none(entry: Entry) -> None:
    lab = rubric.load(entry)
    student, solution = course.build(entry)
    solved, open_ = (functions(n, list(lab.rubric.exercises)) for n in (solution, student))
    for name in lab.rubric.exercises:
        for case, _ in lab.cases(name):
            assert verdict(case, ask(solved[name], case)) == "", (name, case.name)
            assert verdict(case, ask(open_[name], case)) != "", (name, case.name)


@pytest.mark.parametrize("entry", BUILT, ids=lambda e: e.id)
def test_hidden_cases_outnumber_the_visible_and_repeat_none(entry: Entry) -> None:
    lab = rubric.load(entry)
    for name in lab.rubric.exercises:
        hidden, visible = lab.hidden[name], lab.spec.cases[name]
        assert len(hidden) >= len(visible)
        assert not {repr((c.args, c.trace)) for c in hidden} & {repr((c.args, c.trace)) for c in visible}


def test_points_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 90 points"):
        Rubric(lab="3.3.1", exercises={"a": 90})


def test_a_rule_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(
        'lab = "3.3.1"\nexercises = { a = 90 }\n[[measurements]]\nrule = "guess"\nmetric = "ttft"\npoints = 10\n'
    )
    with pytest.raises(LabsError, match="there is no rule 'guess'"):
        rubric.read(path)


def test_hidden_cases_and_rubrics_can_live_elsewhere(tmp_path: Path) -> None:
    entry = syllabus.find("3.3.1")
    (tmp_path / "lab_3_3_1.py").write_text(
        "from labs_helpers.exercises import Case, equals\nCASES = {'tpot': (Case('mine', equals(None), ([], 0)),)}\n"
    )
    text = (rubric.HERE / "rubrics" / "lab_3_3_1.toml").read_text()
    (tmp_path / "lab_3_3_1.toml").write_text(
        text.replace("percentile = 14", "percentile = 10").replace("rank = 14", "rank = 18")
    )
    found = rubric.load(entry, cases=tmp_path, rubrics=tmp_path)
    assert [c.name for c in found.hidden["tpot"]] == ["mine"] and "rank" not in found.hidden
    assert found.rubric.exercises["rank"] == 18
    assert found.fingerprint() != rubric.load(entry).fingerprint()


def test_broken_cases_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "lab_3_3_1.py").write_text("CASES = {")
    with pytest.raises(LabsError, match=r"lab_3_3_1.py cannot be read: SyntaxError"):
        rubric.load(syllabus.find("3.3.1"), cases=tmp_path)
