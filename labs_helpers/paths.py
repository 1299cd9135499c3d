"""Where things live: the checkout and the cache outside it. Standard library only (the launcher uses it)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


def cache_dir() -> Path:
    """The folder for everything that is downloaded or built: `LABS_CACHE`, else `labs` in the user's cache folder."""
    if chosen := os.environ.get("LABS_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "labs"
