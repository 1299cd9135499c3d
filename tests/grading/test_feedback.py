"""A feedback page tells a student what they need, reveals nothing hidden, and runs nothing."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.grading import feedback
from labs_helpers.grading.gradebook import Policy
from labs_helpers.grading.records import CaseRow, Grade, Item, Student
from labs_helpers.results import LabResult, Measurement

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)><iframe src='//evil.example'></iframe>"


def grade(text: str = "tpot", **changes: Any) -> Grade:
    cases = (
        CaseRow(name="seen", hidden=False, passed=False, message=f"expected 1, got {text!r}"),
        CaseRow(name="unseen", hidden=True, passed=False),
    )
    result = LabResult(lab="3.3.1", measurements=[
        Measurement(metric="ttft", value=12.5, engine="vllm", engine_version="1", machine="m", n=3)])  # fmt: skip
    values = {
        "student": Student(id=text, first_name=text), "lab": "3.3.1", "key": "", "reason": text, "notes": (text,),
        "items": (Item(kind="exercise", name=text, points=3.5, most=14, status="partial", reason="1 of 4", cases=cases),
                  Item(kind="question", name="why", points=0, most=5, status="to be read")),
        "result": result, "answers": {"why": text},
    }  # fmt: skip
    return Grade(**{**values, **changes})


def notebook(text: str) -> Any:
    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stdout", text=text),
        v4.new_output("display_data", data={"text/html": text, "application/javascript": text, "image/svg+xml": text}),
        v4.new_output("display_data", data={"image/png": PNG}),
        v4.new_output("display_data", data={"image/png": "not a png", "text/plain": text}),
        v4.new_output("error", ename=text, evalue=text, traceback=[text]),
    ]
    cells = [v4.new_markdown_cell(text + "\n\n[a](javascript:alert(3)) ![b](http://evil.example/x.png)"),
             v4.new_code_cell(text, outputs=outputs)]  # fmt: skip
    return v4.new_notebook(cells=cells, metadata={"title": text})


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.handlers += [
            value or "" for name, value in attrs if (value or "").strip().lower().startswith("javascript:")
        ]


def examine(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_what_the_student_needs_is_there() -> None:
    page = feedback.render(grade(), notebook("print(1)"), Policy(), "Engine Benchmark")
    for text in ("Engine Benchmark", "3.5 / 14", "seen: expected 1", "unseen", "12.5 ms", "vllm", "Read by a person"):
        assert text in page
    assert "data:image/png" in page


def test_hostile_names_cells_and_outputs_are_texts() -> None:
    page = feedback.render(grade(EVIL), notebook(EVIL), Policy(), EVIL)
    found = examine(page)
    assert not found.names & {"script", "iframe", "object", "embed", "svg", "link", "base", "form"}
    assert not found.handlers
    assert "default-src 'none'" in page


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_makes_a_page(text: str) -> None:
    page = feedback.render(grade(text), notebook(text), Policy(), text)
    assert not examine(page).names & {"script", "iframe"}


def test_a_notebook_that_nbconvert_cannot_take_is_shown_as_text() -> None:
    broken = notebook("x = 1")
    broken.cells[1].outputs = [{"output_type": "nonsense", "data": 3}]
    assert "x = 1" in feedback.render(grade(), broken, Policy())


def test_a_rejected_submission_has_a_page_too() -> None:
    page = feedback.render(grade(status="rejected", result=None, items=()), None, Policy())
    assert "of 100" in page
