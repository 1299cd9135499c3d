"""Finding submissions: folders, zips, single notebooks.

Nothing here trusts a name, a size or a link. A broken submission has a `problem` that the student can read; it becomes
a row of the gradebook.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.grading import manifest
from labs_helpers.grading.names import BLACKBOARD, CANVAS, student_of
from labs_helpers.grading.reading import Rejected, lab_of
from labs_helpers.grading.records import Student
from labs_helpers.grading.unpack import SKIP, unzip


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
    known = manifest.read(root if root.is_dir() else root.parent)
    return sorted(_no_duplicates([_with(known, s) for s in found]), key=lambda s: (s.student.id, s.lab, str(s.path)))


def _folder(root: Path, unpack_to: Path) -> Iterator[Submission]:
    for entry in sorted(root.iterdir(), key=lambda p: p.name):
        if entry.name in SKIP or entry.name.startswith(".") or entry.name in manifest.FILES:
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
        for path in (base / name for name in sorted(files) if not name.startswith(".")):
            if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFLNK):  # a pipe would never end
                yield path


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


def _with(known: dict[str, dict[str, str]], found: Submission) -> Submission:
    row = known.get(found.student.id)
    if row is None:
        return found
    student = Student(
        id=found.student.id,
        **{key: row.get(key) or getattr(found.student, key) for key in ("last_name", "first_name", "email")},
    )
    moment = found.submitted_at
    if text := row.get("timestamp"):
        moment = manifest.parse_moment(text, f"the timestamp of {found.student.id} in the manifest")
    return replace(found, student=student, submitted_at=moment)
