"""Reading a notebook that may be anything: its cells, without outputs, or why it is rejected."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

NOTEBOOK_BYTES = 50 << 20
CELLS = 5_000


class Rejected(Exception):
    """A submission in which there is nothing to grade; the message says why, in words for the student."""


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


def lab_of(path: Path) -> str:
    """The lab a notebook says it is of: by its metadata, else by its file name; '' when neither says."""
    try:
        if path.is_file() and path.stat().st_size <= NOTEBOOK_BYTES:
            data = json.loads(path.read_bytes())
            lab = data.get("metadata", {}).get("labs", {}).get("lab")
            if isinstance(lab, str) and re.fullmatch(r"3\.3\.[1-9]", lab):
                return lab
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    match = re.search(r"3[._-]3[._-]([1-9])(?!\d)", path.name)
    return f"3.3.{match[1]}" if match else ""
