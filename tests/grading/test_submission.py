"""Who handed in what: names an LMS gives, folders, zips, single notebooks, times, and everything that is broken."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.errors import LabsError
from labs_helpers.grading.names import safe_id, student_of
from labs_helpers.grading.reading import Rejected, lab_of, read_notebook
from labs_helpers.grading.submission import find
from labs_helpers.grading.unpack import unzip


def notebook(lab: str = "3.3.1") -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"labs": {"lab": lab}}, "cells": []}


def put(path: Path, lab: str = "3.3.1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(lab)))
    return path


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("Ada Lovelace_123456_assignsubmission_file_", ("123456", "Ada", "Lovelace")),
        ("Ada Lovelace_123456_assignsubmission_file_lab-3.3.1.ipynb", ("123456", "Ada", "Lovelace")),
        ("lovelaceada_LATE_4711_99231_lab-3.3.1-engine-benchmark.ipynb", ("4711", "", "lovelaceada")),
        ("lovelaceada_4711_99231_lab.zip", ("4711", "", "lovelaceada")),
        ("Lab 1_alovelace_attempt_2026-11-20-10-11-12_lab.ipynb", ("alovelace", "", "")),
        ("alovelace", ("alovelace", "", "")),
        ("Zoe\u0308", ("Zo\u00eb", "", "")),
    ],
)
def test_names_of_moodle_canvas_and_blackboard(name: str, student: tuple[str, str, str]) -> None:
    found = student_of(name)
    assert (found.id, found.first_name, found.last_name) == student


@given(st.text())
def test_an_id_is_always_a_file_name(text: str) -> None:
    name = safe_id(text)
    assert name and "/" not in name and "\0" not in name and name not in (".", "..") and not name.startswith(".")
    assert len(name) <= 80


def test_a_folder_of_folders_zips_and_notebooks(tmp_path: Path) -> None:
    put(tmp_path / "in" / "ada" / "lab-3.3.1-engine-benchmark.ipynb")
    put(tmp_path / "in" / "ada" / "lab-3.3.2-x.ipynb", "3.3.2")
    put(tmp_path / "in" / "ada" / ".ipynb_checkpoints" / "lab-3.3.1-checkpoint.ipynb")
    put(tmp_path / "in" / "bob.ipynb")
    with zipfile.ZipFile(tmp_path / "in" / "eve.zip", "w") as archive:
        archive.writestr("deep/down/lab-3.3.1.ipynb", json.dumps(notebook()))
        archive.writestr("__MACOSX/deep/._lab-3.3.1.ipynb", "junk")
    found = find(tmp_path / "in", tmp_path / "unpacked")
    assert [(s.student.id, s.lab, s.problem) for s in found] == [
        ("ada", "3.3.1", ""), ("ada", "3.3.2", ""), ("bob", "3.3.1", ""), ("eve", "3.3.1", "")]  # fmt: skip


def test_a_zip_of_the_whole_class(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        for name in ("Ada L_1001_assignsubmission_file_", "Bob M_1002_assignsubmission_file_"):
            archive.writestr(f"{name}/lab-3.3.1.ipynb", json.dumps(notebook()))
    found = find(tmp_path / "class.zip", tmp_path / "unpacked")
    assert [(s.student.id, s.student.last_name) for s in found] == [("1001", "L"), ("1002", "M")]


def test_a_single_notebook(tmp_path: Path) -> None:
    found = find(put(tmp_path / "ada.ipynb"), tmp_path / "unpacked")
    assert [(s.student.id, s.lab) for s in found] == [("ada", "3.3.1")]


def test_the_manifest_names_students_and_times(tmp_path: Path) -> None:
    put(tmp_path / "1001" / "lab-3.3.1.ipynb")
    (tmp_path / "manifest.csv").write_text(
        "student_id,last_name,first_name,email,timestamp\n1001,Lovelace,Ada,ada@example.org,2026-11-20T10:00:00+01:00\n"
    )
    (found,) = find(tmp_path, tmp_path / "unpacked")
    assert found.student.last_name == "Lovelace" and found.student.email == "ada@example.org"
    assert found.submitted_at == datetime(2026, 11, 20, 9, tzinfo=UTC)


def test_without_a_manifest_the_file_says_when(tmp_path: Path) -> None:
    path = put(tmp_path / "ada" / "lab-3.3.1.ipynb")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (found,) = find(tmp_path, tmp_path / "unpacked")
    assert found.submitted_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_ids_that_differ_in_case_only_are_one_student(tmp_path: Path) -> None:
    put(tmp_path / "ada" / "lab-3.3.1.ipynb")
    put(tmp_path / "ADA" / "lab-3.3.1.ipynb")
    (found,) = find(tmp_path, tmp_path / "unpacked")
    assert "2 submissions of one student" in found.problem


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_nothing_to_grade_is_said_at_once(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "in")
    with pytest.raises(LabsError, match=r"submissions|neither"):
        find(tmp_path / "in", tmp_path / "unpacked")


def test_unpacking_never_writes_outside(tmp_path: Path) -> None:
    for name in ("../x.ipynb", "/x.ipynb", "a/../../x.ipynb", "..\\x.ipynb", "C:\\x.ipynb"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, "{}")
        with pytest.raises(Rejected, match="outside"):
            unzip(tmp_path / "bad.zip", tmp_path / "deep" / "target")
    assert not list(tmp_path.rglob("x.ipynb"))


def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(2_001):
            archive.writestr(str(number), "")
    with pytest.raises(Rejected, match="2001 entries"):
        unzip(tmp_path / "many.zip", tmp_path / "target")


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_notebook_or_rejected(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.ipynb"
    path.write_bytes(data)
    lab_of(path)
    with pytest.raises(Rejected):
        read_notebook(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["cell_type", "source", "metadata", "id", "labs", "outputs"]), inner, max_size=6), max_leaves=12)  # fmt: skip


@given(cells=st.lists(json_values, max_size=4), metadata=json_values)
def test_any_cells_are_read_or_rejected(cells: Any, metadata: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cells") / "x.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}))
    lab_of(path)
    try:
        found = read_notebook(path)
    except Rejected:
        return
    assert all(isinstance(cell.source, str) for cell in found.cells)
