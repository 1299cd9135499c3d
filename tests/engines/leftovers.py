"""What an engine leaves behind when it ends: nothing, also while another worker runs an engine of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil

from labs_helpers.engines import ports, reaper
from labs_helpers.engines.base import Server


def port_of(server: Server) -> int:
    return int(server.base_url.rsplit(":", 1)[1])


def unused_shared_memory() -> set[int]:
    """What lies in /dev/shm and no process has open: nobody will ever remove it."""
    return set(reaper.shared_memory()) - reaper.shared_memory_of(psutil.pids())


@contextmanager
def nothing_left_of(serving: AbstractContextManager[Server]) -> Iterator[Server]:
    """The server; after its end, fail when a process, the port or shared memory of it is still there."""
    unused = unused_shared_memory()
    with serving as server:
        tree = {server.pid, *reaper.descendants(server.pid)}
        yield server
        tree |= set(reaper.descendants(server.pid))
        used = reaper.shared_memory_of(tree)
    assert not tree & set(reaper.parents()), "processes are left"
    assert ports.listener(port_of(server)) is None, "the port is still open"
    assert not used & set(reaper.shared_memory()), "shared memory is left"
    deadline = time.monotonic() + 5  # another engine's file may lie there for a moment before anybody has it open
    while unclaimed := unused_shared_memory() - unused:
        assert time.monotonic() < deadline, f"shared memory that nobody uses is left: {unclaimed}"
        time.sleep(0.1)
