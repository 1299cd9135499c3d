"""nbgrader can open what the course is written in: the same markers, cleared by its own converter."""

from __future__ import annotations

import ast

import jupytext
import pytest
from nbgrader.preprocessors import ClearSolutions

from labs_helpers import syllabus
from labs_helpers.course import BEGIN, END, signatures
from labs_helpers.syllabus import Entry


@pytest.mark.parametrize("entry", syllabus.built(), ids=lambda e: e.id)
def test_nbgraders_converter_clears_every_solution(entry: Entry) -> None:
    source = jupytext.read(entry.source, fmt="py:percent")
    before = {i: c.source for i, c in enumerate(source.cells) if BEGIN in c.source}
    cleared, _ = ClearSolutions(enforce_metadata=False).preprocess(source, {})
    assert before
    for index, text in before.items():
        cell = cleared.cells[index]
        assert BEGIN not in cell.source and END not in cell.source
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert signatures(cell.source) == signatures(text)
            assert "YOUR CODE HERE" in cell.source
