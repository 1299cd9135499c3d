"""Grading: submissions in, gradebook and feedback out. `batch.grade` is the entry; docs/INSTRUCTORS.md the manual."""

from __future__ import annotations

import sys

# jsonschema would import it for a format that notebooks do not use, and it builds a grammar for two seconds
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
