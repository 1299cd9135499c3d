"""Cleaning up after an engine removes what was its own, and never what a bystander still uses."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import shared_memory

from labs_helpers.engines import reaper


def test_a_bystanders_semaphore_survives_although_its_map_has_another_name():
    """sem_open renames its file after mapping it: only the inode tells who uses it."""
    before = reaper.shared_memory()
    semaphore = multiprocessing.get_context("spawn").Semaphore(1)
    name = "sem." + semaphore._semlock.name.lstrip("/")
    assert name in reaper.shared_memory()
    reaper.remove_shared_memory(before, seen=())
    assert name in reaper.shared_memory()


def test_a_bystanders_segment_survives_while_it_is_open():
    before = reaper.shared_memory()
    segment = shared_memory.SharedMemory(create=True, size=4096)
    try:
        reaper.remove_shared_memory(before, seen=())
        assert segment.name.lstrip("/") in reaper.shared_memory()
    finally:
        segment.close()
        segment.unlink()


def test_what_the_engine_had_open_goes_even_if_it_is_named_like_nothing_known(tmp_path):
    path = f"{reaper.SHM}/labs-test-{os.getpid()}"
    before = reaper.shared_memory()
    with open(path, "wb") as file:  # noqa: PTH123
        seen = reaper.shared_memory_of([os.getpid()])
        file.write(b"x")
    reaper.remove_shared_memory(before, seen)
    assert not os.path.exists(path)  # noqa: PTH110


def test_an_orphan_named_as_engines_name_theirs_goes():
    before = reaper.shared_memory()
    path = f"{reaper.SHM}/psm_labs_test_{os.getpid()}"
    open(path, "wb").close()  # noqa: PTH123, SIM115
    reaper.remove_shared_memory(before, seen=())
    assert not os.path.exists(path)  # noqa: PTH110


def test_what_was_there_before_stays():
    path = f"{reaper.SHM}/psm_labs_before_{os.getpid()}"
    open(path, "wb").close()  # noqa: PTH123, SIM115
    try:
        reaper.remove_shared_memory(reaper.shared_memory(), seen=())
        assert os.path.exists(path)  # noqa: PTH110
    finally:
        os.unlink(path)  # noqa: PTH108
