"""What every worker of the tests needs (pytest-xdist), also where it runs notebooks: `-p tests.spread`."""

from __future__ import annotations

import os
import signal

# a worker's engines take turns among themselves; the kernels it starts inherit this
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["LABS_ENGINE_LOCK"] = f"running-{worker}.lock"

# a shell that starts a job in the background makes it ignore Ctrl-C, and so would every program that a test interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
