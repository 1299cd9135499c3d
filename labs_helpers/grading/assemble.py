"""From a student's notebook to the one that is graded: their exercise cells and added cells in the pristine notebook.

Everything else of theirs (changed course cells, outputs, metadata) is ignored, so deleted, reordered or rewritten
course cells cannot change what is measured.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labs_helpers.course import cell_name

MOST_ADDED_CELLS = 500


@dataclass(frozen=True)
class Assembled:
    """What is graded of a submission."""

    notebook: Any
    """The pristine notebook with the student's cells in it."""
    exercises: Mapping[str, str | None]
    """Source of each exercise cell; None where the submission has none."""
    added: tuple[str, ...]
    """Sources of code cells the student added, in order."""
    answers: Mapping[str, str]
    """Reflection questions: the student's text."""
    answered: Mapping[str, bool]
    """Whether that text differs from the notebook as handed out."""
    notes: tuple[str, ...]
    """What was left out or looked odd, for the feedback page."""


def assemble(pristine: Any, submitted: Any, *, without: Iterable[str] = ()) -> Assembled:
    """Put the student's cells into a copy of the pristine notebook.

    Args:
        pristine: the student notebook as handed out.
        submitted: the notebook handed in; valid nbformat 4.
        without: exercises whose pristine stub stays, because running the student's cell is not survivable.
    """
    base = copy.deepcopy(pristine)
    notes: list[str] = []
    names = [name for cell in base.cells if (name := cell_name(cell)) and name.startswith("exercise-")]
    chosen = {name: _choose(submitted, name, notes) for name in names}
    for name, cell in _by_function(base, submitted, [n for n in names if chosen[n] is None]):
        chosen[name] = cell
        notes.append(f"the cell of {name.removeprefix('exercise-')} had lost its mark; recognised by its function")
    left_out = {f"exercise-{name}" for name in without}
    for cell in base.cells:
        name = cell_name(cell) or ""
        mine = chosen.get(name)
        if mine is not None and name not in left_out:
            cell.source = mine.source
    added = list(_added(pristine, submitted, [c for c in chosen.values() if c is not None]))
    if len(added) > MOST_ADDED_CELLS:
        notes.append(f"only the first {MOST_ADDED_CELLS} of {len(added)} added cells are run")
        added = added[:MOST_ADDED_CELLS]
    base.cells = list(_merge(base.cells, added))
    exercises = {name.removeprefix("exercise-"): None if cell is None else cell.source for name, cell in chosen.items()}
    answers, answered = _answers(pristine, submitted)
    notes += [f"the exercise cell of {name} is missing" for name, source in exercises.items() if source is None]
    return Assembled(base, exercises, tuple(cell.source for _, cell in added), answers, answered, tuple(notes))


def _choose(submitted: Any, name: str, notes: list[str]) -> Any | None:
    found = [c for c in submitted.cells if c.cell_type == "code" and _claimed_name(c) == name]
    if len(found) > 1:
        notes.append(f"{len(found)} cells claim to be {name.removeprefix('exercise-')}; the original counts")
        found.sort(key=lambda cell: cell.get("id") != name)
    return found[0] if found else None


def _claimed_name(cell: Any) -> str | None:
    """`cell_name` for a cell whose metadata may be anything."""
    labs = cell.metadata.get("labs")
    if isinstance(labs, dict) and isinstance(labs.get("exercise"), str):
        return f"exercise-{labs['exercise']}"
    identity = cell.get("id")
    return identity if isinstance(identity, str) and identity.startswith("exercise-") else None


def _by_function(base: Any, submitted: Any, missing: list[str]) -> Iterator[tuple[str, Any]]:
    """Exercise cells that lost their metadata (some tools drop it), found by the function they define."""
    claimed = [c for c in submitted.cells if c.cell_type == "code" and not _claimed_name(c)]
    for name in missing:
        stub = next(c for c in base.cells if cell_name(c) == name)
        heads = definitions(stub.source)
        match = [c for c in claimed if heads and heads <= definitions(c.source)]
        if match:
            yield name, match[-1]


def definitions(source: str) -> set[str]:
    """Names of the functions and classes a cell defines; none when it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


def _added(pristine: Any, submitted: Any, exercises: list[Any]) -> Iterator[tuple[str | None, Any]]:
    """The student's own code cells, each with the id of the pristine cell before it (None: at the start)."""
    known_ids = {c.id for c in pristine.cells}
    known_sources = {c.source.strip(): c.id for c in pristine.cells if c.cell_type == "code"}
    anchor: str | None = None
    for number, cell in enumerate(submitted.cells):
        identity = cell.get("id")
        if identity in known_ids:
            anchor = identity
        elif cell.cell_type == "code" and (at := known_sources.get(cell.source.strip())):
            anchor = at
        elif (name := _claimed_name(cell)) in known_ids:
            anchor = name
        elif cell.cell_type == "code" and cell.source.strip() and not any(cell is e for e in exercises):
            yield anchor, _fresh(cell.source, number)


def _fresh(source: str, number: int) -> Any:
    """A cell of ours with the student's source: their metadata could hold papermill's or nbclient's tags."""
    import nbformat

    cell = nbformat.v4.new_code_cell(source)
    cell.id = f"added-{number}"
    cell.metadata["labs"] = {"added": True}
    return cell


def _merge(cells: list[Any], added: list[tuple[str | None, Any]]) -> Iterator[Any]:
    waiting: dict[str | None, list[Any]] = {}
    for anchor, cell in added:
        waiting.setdefault(anchor, []).append(cell)
    # nothing may come before the parameters: papermill injects after them
    early = waiting.pop(None, [])
    for cell in cells:
        yield cell
        if early and cell_name(cell) == "parameters":
            yield from early
            early = []
        yield from waiting.pop(cell.id, [])
    yield from early


def _answers(pristine: Any, submitted: Any) -> tuple[dict[str, str], dict[str, bool]]:
    answers, answered = {}, {}
    for cell in pristine.cells:
        name = cell_name(cell) or ""
        if not name.startswith("question-"):
            continue
        short = name.removeprefix("question-")
        theirs = next((c.source for c in submitted.cells if c.get("id") == name or _question(c) == short), None)
        answers[short] = (theirs or "")[:20_000]
        answered[short] = theirs is not None and theirs.strip() != cell.source.strip()
    return answers, answered


def _question(cell: Any) -> Any:
    labs = cell.metadata.get("labs")
    return labs.get("question") if isinstance(labs, dict) else None


def imports_for(pristine: Any, sources: Iterable[str]) -> list[str]:
    """Import statements of the course's cells that bind a name these sources use, each as a statement of its own."""
    used = {node.id for source in sources for node in _walk(source) if isinstance(node, ast.Name)}
    found = []
    for cell in pristine.cells:
        if cell.cell_type != "code":
            continue
        for node in _walk(cell.source, top=True):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [ast.unparse(part) for part in _single(node) if _bound(part) in used]
    return list(dict.fromkeys(found))


def helpers_only(source: str) -> str:
    """Imports, functions, classes and assignments of a cell, without the lines that do things."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    keep = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, keep) or _constant(node))


def _constant(node: ast.stmt) -> bool:
    """An assignment that calls nothing."""
    return isinstance(node, ast.Assign | ast.AnnAssign) and not any(
        isinstance(part, ast.Call | ast.Await) for part in ast.walk(node)
    )


def _walk(source: str, top: bool = False) -> Iterator[ast.AST]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from tree.body if top else ast.walk(tree)


def _single(node: ast.Import | ast.ImportFrom) -> Iterator[ast.Import | ast.ImportFrom]:
    for alias in node.names:
        yield (
            ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], node.level)
        )


def _bound(node: ast.Import | ast.ImportFrom) -> str:
    alias = node.names[0]
    return alias.asname or alias.name.split(".")[0]
