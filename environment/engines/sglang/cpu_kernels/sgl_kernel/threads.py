"""Which cores compute. SGLang asks this of its kernels on ARM; on x86 without AMX it leaves the process as it is."""

from __future__ import annotations

import os

import torch


def init_cpu_threads_env(cores: str) -> None:
    """Compute on `cores`, written '0,1' or '0-3', one thread each, as far as this process may use them.

    OMP_NUM_THREADS, where set, is the most threads: SGLang names every core of the machine unless told otherwise.
    """
    wanted: set[int] = set()
    for part in cores.split(","):
        first, _, last = part.partition("-")
        wanted.update(range(int(first), int(last or first) + 1))
    mine = sorted(wanted & os.sched_getaffinity(0)) or sorted(os.sched_getaffinity(0))
    torch.set_num_threads(min(len(mine), int(os.environ.get("OMP_NUM_THREADS", len(mine)))))


def initialize(size: int, rank: int) -> None:
    """Shared memory between the ranks of a tensor-parallel server: one rank needs none.

    Raises:
        NotImplementedError: there are several.
    """
    if size != 1:
        raise NotImplementedError(f"initialize of the course's CPU kernels serves one rank, not {size}")
