"""One HTML page per student and lab: points, reasons, the student's own figures, the notebook as it ran.

Everything on it may be hostile. Three walls: outputs are reduced to text and PNG, nbconvert sanitizes what is left,
and the page's own policy forbids scripts and anything from elsewhere. Hidden cases are named, never shown.
"""

from __future__ import annotations

import base64
import copy
import functools
from pathlib import Path
from typing import Any

from labs_helpers.grading.gradebook import Policy, row
from labs_helpers.grading.records import Grade
from labs_helpers.results import write_atomically

TEXT_CHARACTERS = 20_000
PNG_BYTES = 2 << 20
FIGURES = 200
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def write(path: Path, grade: Grade, notebook: Any, policy: Policy, title: str = "") -> None:
    """Write the page of one grade. `notebook` may be None when there was nothing to run."""
    write_atomically(path, render(grade, notebook, policy, title))


def render(grade: Grade, notebook: Any, policy: Policy, title: str = "") -> str:
    """The page as a text."""
    from markupsafe import Markup

    figures = [m for m in grade.result.measurements if m.source == "measured"][:FIGURES] if grade.result else []
    machine = (
        str(grade.result.machine.get("name") or grade.result.machine.get("label") or "the grading machine")
        if (grade.result)
        else ""
    )
    body = Markup(_notebook_html(notebook)) if notebook is not None else ""  # noqa: S704 (sanitized by nbconvert)
    return str(
        _template().render(
            grade=grade, row=row(grade, policy), title=title, figures=figures, machine=machine, notebook=body
        )
    )


@functools.cache
def _template() -> Any:
    from jinja2 import Environment

    text = Path(__file__).with_name("feedback.html.jinja").read_text()
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


@functools.cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(
        template_name="basic",
        sanitize_html=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=False,
    )


def _notebook_html(notebook: Any) -> str:
    """The notebook as an HTML fragment; plain text when even nbconvert cannot make sense of it."""
    from html import escape

    try:
        body, _ = _exporter().from_notebook_node(harmless(notebook))
        return str(body)
    except Exception:
        sources = [escape(str(c.get("source", ""))[:TEXT_CHARACTERS]) for c in notebook.get("cells", ())]
        return "".join(f"<pre>{source}</pre>" for source in sources)


def harmless(notebook: Any) -> Any:
    """A copy with only text and PNG outputs, and no attachments or metadata."""
    clean = copy.deepcopy(notebook)
    clean.metadata = {"language_info": {"name": "python"}}
    for cell in clean.cells:
        cell.metadata = {}
        cell.pop("attachments", None)
        cell.source = str(cell.source)[:TEXT_CHARACTERS]
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := _output(output)) is not None]
    return clean


def _output(output: Any) -> Any | None:
    from nbformat import v4

    kind = output.get("output_type")
    if kind == "stream":
        return v4.new_output("stream", name="stdout", text=_text(output.get("text")))
    if kind == "error":
        lines = [_text(line) for line in output.get("traceback", ())][-30:]
        return v4.new_output(
            "error", ename=_text(output.get("ename")), evalue=_text(output.get("evalue")), traceback=lines
        )
    data = output.get("data", {})
    if (png := _png(data.get("image/png"))) is not None:
        return v4.new_output("display_data", data={"image/png": png})
    if "text/plain" in data:
        return v4.new_output("display_data", data={"text/plain": _text(data["text/plain"])})
    return None


def _text(value: Any) -> str:
    text = "".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + "\n[cut]"


def _png(value: Any) -> str | None:
    text = "".join(value) if isinstance(value, list) else value
    if not isinstance(text, str) or len(text) > PNG_BYTES:
        return None
    try:
        return text if base64.b64decode(text).startswith(PNG_MAGIC) else None
    except ValueError:
        return None
