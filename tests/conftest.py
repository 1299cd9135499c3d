"""What every test process needs."""

from __future__ import annotations

import signal

# a shell that starts a job in the background makes it ignore Ctrl-C, and so would every program that a test interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
