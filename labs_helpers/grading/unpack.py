"""Unpacking an archive that may be hostile: nothing outside its folder, no links, no bombs."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from labs_helpers.grading.names import safe_id
from labs_helpers.grading.reading import Rejected

ZIP_BYTES = 200 << 20
ZIP_RATIO = 200
"""Compressed text rarely shrinks more than twenty times; a bomb shrinks a thousand times."""
ZIP_ENTRIES = 2_000
SKIP = {"__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store", "results"}


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
        RuntimeError,  # its NotImplementedError: a compression that zipfile does not know
        EOFError,
        OSError,
        ValueError,  # its UnicodeError: a name that no encoding explains
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
