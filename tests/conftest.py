"""How the tests are spread over workers: whole files, for their fixtures are dear, and all grading on one worker."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(HERE) if item.path.is_relative_to(HERE) else item.path
        # the zoo looks at all processes for what it left running, so no other sandbox may run beside it
        group = "grading" if place.parts[0] == "grading" else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
