"""What several commands take: options of one form, and NAME=VALUE texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT

RESULTS = ROOT / "results"
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path, typer.Option(help="Folder for what is written.")]


def pairs(items: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a dictionary; values that read as JSON (numbers, true, false) become that."""
    found: dict[str, Any] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise LabsError(f"{item!r} is not NAME=VALUE", "e.g. -p scale=quick")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
