"""How the tests are spread over workers (pytest-xdist): by whole files, for their fixtures are dear.

Loaded by `./labs test` with `-p tests.spread`, for the notebooks as well.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# a worker's engines take turns among themselves; the kernels it starts inherit this
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["LABS_ENGINE_LOCK"] = f"running-{worker}.lock"

# a shell that starts a job in the background makes it ignore Ctrl-C, and so would every program that a test interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist's own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
        # the zoo looks at all processes for what it left running, so no other sandbox may run beside it
        sandboxed = place.parts[0] == "grading" and "engine" not in item.keywords
        item.add_marker(pytest.mark.xdist_group("sandboxes" if sandboxed else str(place)))
