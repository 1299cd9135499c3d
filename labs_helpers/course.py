"""From `notebooks/source/*.py` to the student and the solution notebook.

The source is jupytext's percent format. Between `### BEGIN SOLUTION` and `### END SOLUTION` stands what the student
writes; the student notebook gets a stub there that runs, the solution notebook keeps it without the markers. Cell
metadata under the key `labs` names exercises (`labs={"exercise": "percentile"}`) and reflection questions
(`labs={"question": "why"}`); cell ids are derived from them, so that grading finds a cell wherever it was moved.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.results import write_atomically
from labs_helpers.syllabus import PARAMETERS, Entry, built

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_BLOCK = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}[^\n]*\n.*?^[ \t]*{END}[^\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(rf"^[ \t]*(?:{BEGIN}|{END})[^\n]*(?:\n|\Z)", re.MULTILINE)


def student_source(cell: str) -> str:
    """The cell with every solution replaced by a stub that runs and returns `...`."""

    def stub(match: re.Match[str]) -> str:
        indent = match["indent"]
        return f"{indent}# YOUR CODE HERE\n{indent}{'return ...' if indent else '...'}\n"

    return _BLOCK.sub(stub, cell).rstrip("\n")


def student_text(cell: str) -> str:
    """A question's text without the model answer."""
    return re.sub(rf"<!-- {BEGIN} -->.*?<!-- {END} -->", "", cell, flags=re.DOTALL).rstrip("\n")


def solution_text(cell: str) -> str:
    """A question's text with the model answer."""
    return re.sub(rf"<!-- (?:{BEGIN}|{END}) -->\n*", "", cell).rstrip("\n")


def solution_source(cell: str) -> str:
    """The cell as solved, without the markers."""
    return _MARKER.sub("", cell).rstrip("\n")


def build(entry: Entry) -> tuple[Any, Any]:
    """The student and the solution notebook of one lab, neither executed.

    Raises:
        LabsError: the source has unbalanced solution markers, two exercises of one name, no parameters cell, or
            an exercise without a solution; the message names the source file.
    """
    import jupytext

    source = jupytext.read(entry.source, fmt="py:percent")
    _validate(entry, source)
    student, solution = jupytext.read(entry.source, fmt="py:percent"), source
    for number, (a, b) in enumerate(zip(student.cells, solution.cells, strict=True)):
        a.id = b.id = cell_name(a) or f"cell-{number:02d}"
        if a.cell_type == "code":
            a.source, b.source = student_source(a.source), solution_source(b.source)
            if a.id.startswith("exercise-"):  # what a check says is the same every time: nbval may compare it
                b.metadata["tags"] = ["nbval-check-output"]
        else:
            a.source, b.source = student_text(a.source), solution_text(b.source)
    for notebook in (student, solution):
        notebook.metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
            "language_info": {"name": "python"},
            "labs": {"lab": entry.id},
        }
        notebook.nbformat, notebook.nbformat_minor = 4, 5
    return student, solution


def cell_name(cell: Any) -> str | None:
    """`exercise-NAME`, `question-NAME` or `parameters` for the cells that have a part in grading."""
    labs = cell.metadata.get("labs", {})
    for kind in ("exercise", "question"):
        if kind in labs:
            return f"{kind}-{labs[kind]}"
    return "parameters" if "parameters" in cell.metadata.get("tags", ()) else None


def write(entry: Entry) -> tuple[Path, Path]:
    """Build one lab and write both notebooks; a solution whose code is unchanged keeps its outputs."""
    student, solution = build(entry)
    _keep_outputs(solution, entry.solution)
    for notebook, path in ((student, entry.student), (solution, entry.solution)):
        write_notebook(notebook, path)
    return entry.student, entry.solution


def execute(entry: Entry) -> None:
    """Run the solution notebook from top to bottom in the course kernel and keep its outputs."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from labs_helpers.kernels import private_sockets

    notebook = nbformat.read(entry.solution, as_version=4)
    with private_sockets() as config:
        client = NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            resources={"metadata": {"path": str(entry.student.parent)}},
            config=config,
        )
        client.on_cell_start = lambda cell, cell_index: print(
            f"\rlab {entry.id}: cell {cell_index + 1} of {len(notebook.cells)}", end="", flush=True
        )
        try:
            client.execute()
        except RuntimeError as error:  # so nbclient says that a kernel died, at its start or later
            raise LabsError(f"the kernel of lab {entry.id} died: {error}", "try ./labs doctor") from error
        except CellExecutionError as error:
            what = f"the solution of lab {entry.id} fails:\n{str(error)[-1500:]}"
            raise LabsError(what, f"mend {entry.source}") from None
        finally:
            print()
    write_notebook(tidy(notebook), entry.solution)


def tidy(notebook: Any) -> Any:
    """Outputs fit to keep: no execution times, and of lines that were rewritten in place only the last state."""
    notebook.metadata["language_info"] = {"name": "python"}  # not which patch release it ran on
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                lines = output.text.replace("\r\n", "\n").split("\n")
                output.text = "\n".join(line.rsplit("\r", 1)[-1] for line in lines)
    return notebook


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook atomically, in nbformat's own form."""
    import nbformat

    nbformat.validate(notebook)
    write_atomically(path, nbformat.writes(notebook) + "\n")


def out_of_step(entry: Entry) -> list[str]:
    """Names of the notebooks of one lab that are not what the source builds (outputs aside)."""
    import nbformat

    wrong = []
    for notebook, path in zip(build(entry), (entry.student, entry.solution), strict=True):
        try:
            if _cells(nbformat.read(path, as_version=4)) != _cells(notebook):
                wrong.append(path.name)
        except FileNotFoundError:
            wrong.append(path.name)
    return wrong


def signatures(cell: str) -> list[str]:
    """Every function and class head in a cell, with annotations and defaults, as the syntax tree prints them."""
    heads = []
    for node in ast.walk(ast.parse(cell)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            heads.append(f"{type(node).__name__} {node.name}({ast.unparse(node.args)})")
        elif isinstance(node, ast.ClassDef):
            heads.append(f"class {node.name}({', '.join(map(ast.unparse, node.bases))})")
    return heads


def build_all() -> Iterator[tuple[Entry, Path, Path]]:
    """Write the notebooks of every built lab."""
    for entry in built():
        yield (entry, *write(entry))


def _cells(notebook: Any) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells]


def _keep_outputs(fresh: Any, path: Path) -> None:
    import nbformat

    if not path.exists():
        return
    old = nbformat.read(path, as_version=4)
    code = [[c.source for c in n.cells if c.cell_type == "code"] for n in (old, fresh)]
    if code[0] != code[1]:
        return
    kept = (c for c in old.cells if c.cell_type == "code")
    for cell, before in zip((c for c in fresh.cells if c.cell_type == "code"), kept, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count


def _validate(entry: Entry, notebook: Any) -> None:
    def wrong(what: str) -> LabsError:
        return LabsError(f"{entry.source.name}: {what}", "mend the source, then ./labs build")

    names: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        blocks = len(_BLOCK.findall(cell.source))
        if not cell.source.count(BEGIN) == cell.source.count(END) == blocks:
            raise wrong(f"unbalanced solution markers in the cell that starts {cell.source[:40]!r}")
        if name := cell_name(cell):
            names.append(name)
            if name.startswith("exercise-") and BEGIN not in cell.source:
                raise wrong(f"{name} has no solution block")
        elif BEGIN in cell.source:
            raise wrong(f"a solution outside an exercise cell: {cell.source[:40]!r}")
    if doubled := {n for n in names if names.count(n) > 1}:
        raise wrong(f"named twice: {', '.join(sorted(doubled))}")
    if "parameters" not in names:
        raise wrong(f"no cell tagged 'parameters' (it sets {', '.join(PARAMETERS)})")
