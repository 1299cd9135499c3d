"""Who a file belongs to: the names an LMS gives to submissions."""

from __future__ import annotations

import re
import unicodedata

from labs_helpers.grading.records import Student

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
