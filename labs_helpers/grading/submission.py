"""Finding and reading submissions: folders, zips, single notebooks, the names an LMS gives them.

Nothing here trusts a name, a size or a link. A broken submission is `Rejected` with a reason that the student can
read; it becomes a row of the gradebook.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.grading.records import Student

NOTEBOOK_BYTES = 50 << 20
ZIP_BYTES = 200 << 20
ZIP_RATIO = 200
"""Compressed text rarely shrinks more than twenty times; a bomb shrinks a thousand times."""
ZIP_ENTRIES = 2_000
CELLS = 5_000
SKIP = {"__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store", "results"}
MANIFEST = ("manifest.csv", "submissions.csv")


class Rejected(Exception):
    """A submission in which there is nothing to grade; the message says why, in words for the student."""


@dataclass(frozen=True)
class Submission:
    """One student's notebook of one lab, or why there is none."""

    student: Student
    path: Path
    lab: str = ""
    submitted_at: datetime | None = None
    problem: str = ""

    @property
    def content_hash(self) -> str:
        """SHA-256 of the file; of the problem when there is no file."""
        if self.problem or not self.path.is_file():
            return hashlib.sha256(self.problem.encode()).hexdigest()
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


# -- names an LMS gives ----------------------------------------------------------------------------------------------

MOODLE = re.compile(r"^(?P<name>.+?)_(?P<id>\d{3,})_assignsubmission_(?:file|onlinetext)(?:_.*)?$")
CANVAS = re.compile(r"^(?P<name>[a-z0-9]+?)(?P<late>_LATE)?_(?P<id>\d{2,})_(?P<upload>\d{2,})_(?P<file>.+)$")
BLACKBOARD = re.compile(r"^.+?_(?P<id>[^_]+)_attempt_(?P<when>\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)_(?P<file>.+)$")


def student_of(name: str) -> Student:
    """Who a folder or file name belongs to. Knows Moodle's, Canvas's and Blackboard's patterns; else it is the id.

    Names are brought to Unicode NFC, so that the same name typed on two systems is one student.
    """
    text = unicodedata.normalize("NFC", name).strip()
    if match := MOODLE.match(text):
        first, _, last = match["name"].partition(" ")
        return Student(id=match["id"], first_name=first, last_name=last)
    if match := CANVAS.match(text):
        return Student(id=match["id"], last_name=match["name"])
    if match := BLACKBOARD.match(text):
        return Student(id=match["id"])
    return Student(id=safe_id(text))


def safe_id(text: str) -> str:
    """An id that is also a file name on any system: no separators, control characters or leading dots."""
    clean = "".join(c if c.isalnum() or c in "-_.@+ " else "_" for c in text).strip(" .")
    return clean[:80] or "unnamed"


# -- finding ---------------------------------------------------------------------------------------------------------


def find(root: Path, unpack_to: Path) -> list[Submission]:
    """All submissions under `root`: a folder of students, a zip of that, or a single notebook.

    A student is a folder, a zip or a notebook in the top folder. Two entries of one student are both rejected: which
    one counts is not for a program to guess.

    Raises:
        LabsError: there is no such path, or nothing in it.
    """
    if not root.exists():
        raise LabsError(f"there are no submissions at {root}", "./labs grade FOLDER, ZIP or NOTEBOOK")
    if root.suffix.lower() == ".ipynb":
        found = list(_files_of(student_of(root.stem), [root], root))
    elif root.suffix.lower() == ".zip":
        try:
            folder = unzip(root, unpack_to / "batch")
        except Rejected as error:
            raise LabsError(f"{root} cannot be unpacked: {error}", "unpack it yourself and grade the folder") from None
        found = list(_folder(_single_folder(folder), unpack_to))
    elif root.is_dir():
        found = list(_folder(root, unpack_to))
    else:
        raise LabsError(f"{root} is neither a folder, a zip nor a notebook", "./labs grade FOLDER, ZIP or NOTEBOOK")
    if not found:
        raise LabsError(f"there are no submissions in {root}", "it should hold one folder, zip or notebook per student")
    manifest = _manifest(root if root.is_dir() else root.parent)
    return sorted(_no_duplicates([_with(manifest, s) for s in found]), key=lambda s: (s.student.id, s.lab, str(s.path)))


def _folder(root: Path, unpack_to: Path) -> Iterator[Submission]:
    for entry in sorted(root.iterdir(), key=lambda p: p.name):
        if entry.name in SKIP or entry.name.startswith(".") or entry.name in MANIFEST:
            continue
        stem = entry.name if entry.is_dir() else entry.stem
        student = student_of(entry.name if CANVAS.match(entry.name) or BLACKBOARD.match(entry.name) else stem)
        if entry.is_symlink():
            yield Submission(student, entry, problem="the submission is a link to somewhere else")
        elif entry.is_dir():
            yield from _of_student(student, entry, unpack_to)
        elif entry.suffix.lower() == ".zip":
            yield from _zipped(student, entry, unpack_to)
        elif entry.suffix.lower() == ".ipynb":
            yield from _files_of(student, [entry], entry)


def _of_student(student: Student, folder: Path, unpack_to: Path) -> Iterator[Submission]:
    notebooks, zips, links = [], [], []
    for path in _walk(folder):
        if path.is_symlink():
            links.append(path)
        elif path.suffix.lower() == ".ipynb":
            notebooks.append(path)
        elif path.suffix.lower() == ".zip":
            zips.append(path)
    if notebooks:
        yield from _files_of(student, notebooks, folder)
    elif zips:
        yield from _zipped(student, zips[0], unpack_to)
    elif links:
        yield Submission(student, folder, problem=f"{links[0].name} is a link to somewhere else, not a notebook")
    else:
        yield Submission(student, folder, problem="there is no notebook in this submission")


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, followlinks=False):
        base = Path(where)
        yield from (base / name for name in sorted(folders) if (base / name).is_symlink())
        folders[:] = sorted(n for n in folders if n not in SKIP and not (base / n).is_symlink())
        yield from (base / name for name in sorted(files) if not name.startswith("."))


def _zipped(student: Student, path: Path, unpack_to: Path) -> Iterator[Submission]:
    target = unpack_to / hashlib.sha256(str(path).encode()).hexdigest()[:16]
    try:
        folder = unzip(path, target)
    except Rejected as error:
        yield Submission(student, path, problem=str(error), submitted_at=_modified(path))
        return
    stamped = _modified(path)
    for found in _of_student(student, folder, unpack_to / "nested"):
        yield replace(found, submitted_at=stamped)


def _files_of(student: Student, paths: Sequence[Path], top: Path) -> Iterator[Submission]:
    by_lab: dict[str, list[Path]] = {}
    for path in paths:
        by_lab.setdefault(lab_of(path), []).append(path)
    for lab, files in by_lab.items():
        if len(files) > 1:
            names = ", ".join(p.name for p in files[:4])
            yield Submission(student, top, lab, problem=f"there are {len(files)} notebooks of one lab: {names}")
        else:
            yield Submission(student, files[0], lab, _modified(files[0]))


def lab_of(path: Path) -> str:
    """The lab a notebook says it is of: by its metadata, else by its file name; '' when neither says."""
    try:
        if path.stat().st_size <= NOTEBOOK_BYTES:
            data = json.loads(path.read_bytes())
            lab = data.get("metadata", {}).get("labs", {}).get("lab")
            if isinstance(lab, str) and re.fullmatch(r"3\.3\.[1-9]", lab):
                return lab
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    match = re.search(r"3[._-]3[._-]([1-9])(?!\d)", path.name)
    return f"3.3.{match[1]}" if match else ""


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return None


def _no_duplicates(found: Sequence[Submission]) -> Iterator[Submission]:
    seen: dict[tuple[str, str], list[Submission]] = {}
    for s in found:
        seen.setdefault((s.student.id.casefold(), s.lab), []).append(s)
    for same in seen.values():
        if len(same) == 1:
            yield same[0]
        else:
            names = ", ".join(sorted(s.path.name for s in same)[:4])
            yield replace(same[0], problem=f"{len(same)} submissions of one student: {names}; keep the one that counts")


def _single_folder(folder: Path) -> Path:
    """A zip often holds one folder that holds everything."""
    entries = [p for p in folder.iterdir() if p.name not in SKIP]
    if (
        len(entries) == 1
        and entries[0].is_dir()
        and any(p.is_dir() or p.suffix == ".zip" for p in entries[0].iterdir())
    ):
        return entries[0]
    return folder


# -- manifest --------------------------------------------------------------------------------------------------------


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of manifest.csv by student id: student_id, last_name, first_name, email, timestamp (ISO 8601)."""
    for name in MANIFEST:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                rows = list(csv.DictReader(file))
            return {
                unicodedata.normalize("NFC", row["student_id"]).strip(): row for row in rows if row.get("student_id")
            }
    return {}


def _with(manifest: dict[str, dict[str, str]], found: Submission) -> Submission:
    row = manifest.get(found.student.id)
    if row is None:
        return found
    student = Student(
        id=found.student.id,
        **{key: row.get(key) or getattr(found.student, key) for key in ("last_name", "first_name", "email")},
    )
    moment = found.submitted_at
    if text := row.get("timestamp"):
        moment = parse_moment(text, f"the timestamp of {found.student.id} in the manifest")
    return replace(found, student=student, submitted_at=moment)


def parse_moment(text: str, what: str) -> datetime:
    """An ISO 8601 time; one without an offset is UTC. Raises LabsError that says what it was for."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise LabsError(f"{what} is {text!r}, not a time", "write it as 2026-11-30T23:59+01:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# -- unpacking -------------------------------------------------------------------------------------------------------


def unzip(path: Path, target: Path) -> Path:
    """Unpack the notebooks and zips in an archive, counting what really comes out of it.

    Raises:
        Rejected: not a zip, encrypted, too many entries, too large, a bomb, a path that leads outside, or a link.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _examine(entries)
            left = ZIP_BYTES
            for entry in entries:
                if entry.is_dir() or SKIP & set(PurePosixPath(entry.filename).parts):
                    continue
                if PurePosixPath(entry.filename).suffix.lower() in (".ipynb", ".zip"):
                    left -= _extract(archive, entry, target, left)
    except Rejected:
        shutil.rmtree(target, ignore_errors=True)
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        UnicodeError,
        ValueError,
        OverflowError,
    ) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise Rejected(f"the zip cannot be read ({type(error).__name__})") from None
    return target


def _examine(entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > ZIP_ENTRIES:
        raise Rejected(f"the zip has {len(entries)} entries; {ZIP_ENTRIES} are allowed")
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if ".." in parts or entry.filename.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", entry.filename):
            raise Rejected("the zip holds a path that leads outside of it")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Rejected("the zip holds a link")
        if entry.flag_bits & 1:
            raise Rejected("the zip is encrypted")
        if entry.file_size > ZIP_BYTES or entry.file_size > max(entry.compress_size, 1024) * ZIP_RATIO:
            raise Rejected("the zip unpacks to far more than it holds (a zip bomb)")
    if sum(e.file_size for e in entries) > ZIP_BYTES:
        raise Rejected(f"the zip unpacks to more than {ZIP_BYTES >> 20} MiB")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, most: int) -> int:
    """Copy one entry under its safe name; the header's size is a claim, so bytes are counted."""
    parts = [safe_id(part) for part in PurePosixPath(entry.filename).parts]
    to = target.joinpath(*parts[:-1], parts[-1])
    to.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as source, to.open("xb") as out:
        while chunk := source.read(1 << 20):
            written += len(chunk)
            if written > most:
                raise Rejected("the zip unpacks to far more than it holds (a zip bomb)")
            out.write(chunk)
    return written


# -- reading ---------------------------------------------------------------------------------------------------------


def read_notebook(path: Path) -> Any:
    """A notebook of nbformat 4, whatever minor version, without its outputs.

    Raises:
        Rejected: it cannot be read, is too large, is no notebook, or is of another version.
    """
    import nbformat

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise Rejected("the notebook is not a file")
            if facts.st_size > NOTEBOOK_BYTES:
                raise Rejected(f"the notebook is larger than {NOTEBOOK_BYTES >> 20} MiB: clear its outputs")
            data = json.loads(file.read(NOTEBOOK_BYTES + 1))
    except OSError as error:
        raise Rejected(f"the notebook cannot be opened ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise Rejected("the notebook is not valid JSON: it may be cut off") from None
    if not isinstance(data, dict) or "nbformat" not in data:
        raise Rejected("the file is not a notebook")
    if data["nbformat"] != 4:
        raise Rejected(f"the notebook is of format {str(data['nbformat'])[:10]}; save it as format 4")
    if not isinstance(data.get("cells"), list) or len(data["cells"]) > CELLS:
        raise Rejected(
            "the notebook has no list of cells"
            if not isinstance(data.get("cells"), list)
            else f"the notebook has more than {CELLS} cells"
        )
    try:
        return nbformat.from_dict(
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": _mapping(data.get("metadata")),
                "cells": [_cell(c, i) for i, c in enumerate(data["cells"])],
            }
        )
    except (TypeError, ValueError, RecursionError):
        raise Rejected("the notebook's cells have the wrong form") from None


def _cell(cell: Any, number: int) -> dict[str, Any]:
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        raise ValueError("cell")
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    if not isinstance(source, str):
        raise ValueError("source")
    identity = cell.get("id")
    if not isinstance(identity, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identity):
        identity = f"unnamed-{number}"
    # surrogates survive JSON but no file or pipe takes them
    clean: dict[str, Any] = {
        "id": identity,
        "cell_type": cell["cell_type"],
        "metadata": _mapping(cell.get("metadata")),
        "source": source.encode("utf-8", "replace").decode(),
    }
    return clean | ({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
