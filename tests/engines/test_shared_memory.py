"""Cleaning up after an engine removes what was its own, and never what a bystander uses."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs_helpers.engines import reaper


@pytest.fixture
def segment() -> Iterator[Path]:
    """A file in /dev/shm that this process has open."""
    path = Path(reaper.SHM, f"labs-test-{os.getpid()}")
    with path.open("wb"):
        yield path
    path.unlink(missing_ok=True)


def test_a_semaphore_is_known_by_its_inode_although_its_map_has_another_name():
    """sem_open renames its file after mapping it: a name in /proc/PID/maps says nothing."""
    semaphore = multiprocessing.get_context("spawn").Semaphore(1)
    path = Path(reaper.SHM, "sem." + semaphore._semlock.name.lstrip("/"))
    assert path.stat().st_ino in reaper.shared_memory_of([os.getpid()])
    assert path.name not in Path("/proc/self/maps").read_text()


def test_what_the_engine_was_seen_to_use_goes(segment):
    before = set(reaper.shared_memory()) - {segment.stat().st_ino}
    reaper.remove_shared_memory(before, reaper.shared_memory_of([os.getpid()]) & {segment.stat().st_ino})
    assert not segment.exists()


def test_what_it_was_never_seen_to_use_stays(segment):
    reaper.remove_shared_memory(before=(), seen=())
    assert segment.exists()


def test_what_was_there_before_stays_although_the_engine_uses_it(segment):
    reaper.remove_shared_memory(before=reaper.shared_memory(), seen=reaper.shared_memory_of([os.getpid()]))
    assert segment.exists()


def test_a_closed_file_is_not_seen(segment):
    inode = segment.stat().st_ino
    assert inode in reaper.shared_memory_of([os.getpid()])
    assert inode not in reaper.shared_memory_of([os.getppid()])
