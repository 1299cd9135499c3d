"""The three notebooks of a lab are one: source, student and solution stay in step."""

from __future__ import annotations

import ast
import json

import pytest

from labs_helpers import course, syllabus
from labs_helpers.errors import LabsError
from labs_helpers.exercises import check

BUILT = syllabus.built()


def exercise_cells(notebook):
    return {c.id.removeprefix("exercise-"): c for c in notebook.cells if c.id.startswith("exercise-")}


@pytest.fixture(params=BUILT, ids=[entry.id for entry in BUILT])
def entry(request):
    return request.param


def test_the_first_lab_is_built():
    assert "3.3.1" in [entry.id for entry in BUILT]


def test_the_notebooks_on_disk_are_what_the_source_builds(entry):
    assert course.out_of_step(entry) == [], "run ./labs build"


def test_the_student_notebook_holds_no_solution_and_no_output(entry):
    raw = entry.student.read_text()
    assert "SOLUTION" not in raw
    assert all(not cell.get("outputs") for cell in json.loads(raw)["cells"])


def test_the_solution_notebook_was_executed_and_shows_it(entry):
    cells = json.loads(entry.solution.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "run ./labs build --execute"
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    assert not [o for cell in code for o in cell["outputs"] if o.get("name") == "stderr"]


def test_stub_and_solution_share_their_signatures(entry):
    student, solution = map(exercise_cells, course.build(entry))
    assert student.keys() == solution.keys() == entry.spec().cases.keys()
    for name in student:
        assert course.signatures(student[name].source) == course.signatures(solution[name].source)


def test_the_solutions_pass_and_the_stubs_are_open(entry):
    student, solution = map(exercise_cells, course.build(entry))
    for name, cases in entry.spec().cases.items():
        for notebook, expected in ((student, "open"), (solution, "passed")):
            assert check(name, _target(notebook[name].source), cases).status == expected, name


def test_cells_are_short_and_explained(entry):
    _, solution = course.build(entry)
    code = [cell.source.count("\n") + 1 for cell in solution.cells if cell.cell_type == "code"]
    assert sorted(code)[len(code) // 2] < 10
    for before, cell in zip(solution.cells, solution.cells[1:], strict=False):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", f"no prose before {cell.source[:60]!r}"


def _target(source):
    """The function or class that an exercise cell defines, without running its `lab.check`."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import)]
    space = {}
    exec(compile(tree, "cell", "exec"), space)
    return [value for name, value in space.items() if not name.startswith("_")][-1]


SOURCE = '''\
# %% [markdown]
# A lab.

# %% tags=["parameters"]
profile = "auto"

# %% labs={"exercise": "half"}
def half(x, *, digits: int = 3):
    """Half of x."""
    ### BEGIN SOLUTION
    y = x / 2
    return round(y, digits)
    ### END SOLUTION

lab.check("half", half)
'''


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A lab of one exercise in a folder of its own; returns a function that builds it from a source text."""
    (tmp_path / "source").mkdir()
    monkeypatch.setattr(syllabus, "NOTEBOOKS", tmp_path)

    def build(text):
        entry = syllabus.Entry("3.3.9", "made", "")
        entry.source.write_text(text)
        return course.build(entry)

    return build


def test_a_solution_becomes_a_stub_that_runs(made):
    student, solution = made(SOURCE)
    cell = exercise_cells(student)["half"].source
    assert "round" not in cell and "return ..." in cell and 'lab.check("half", half)' in cell
    assert "round" in exercise_cells(solution)["half"].source
    assert "SOLUTION" not in exercise_cells(solution)["half"].source


def test_cell_ids_do_not_depend_on_the_order_of_building(made):
    assert [c.id for c in made(SOURCE)[0].cells] == [c.id for c in made(SOURCE)[1].cells]


def test_a_model_answer_is_kept_from_the_student(made):
    question = """
# %% [markdown] labs={"question": "why"}
# Why?
#
# <!-- ### BEGIN SOLUTION -->
# Because.
# <!-- ### END SOLUTION -->
"""
    student, solution = made(SOURCE + question)
    assert student.cells[-1].source == "Why?"
    assert "Because." in solution.cells[-1].source and "SOLUTION" not in solution.cells[-1].source


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (SOURCE.replace("### END SOLUTION", ""), "unbalanced"),
        (SOURCE.replace('tags=["parameters"]', ""), "parameters"),
        (SOURCE.replace("### BEGIN SOLUTION", "").replace("### END SOLUTION", ""), "no solution"),
        (
            SOURCE
            + SOURCE.split("\n\n")[-2]
            + "\n"
            + '# %% labs={"exercise": "half"}\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n',
            "named twice",
        ),
        (SOURCE + "\n# %%\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n", "outside an exercise"),
    ],
)
def test_a_broken_source_is_refused_with_its_reason(made, broken, said):
    with pytest.raises(LabsError, match=said):
        made(broken)


def test_lines_rewritten_in_place_are_kept_in_their_last_state():
    import nbformat

    output = nbformat.v4.new_output("stream", name="stdout", text="10%\r50%\r100%\nready\n")
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    assert course.tidy(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs[0].text == "100%\nready\n"
