"""Grading over a Ray cluster: the same function on the same bytes, on more machines.

Every machine of the cluster needs this checkout at the same path, set up (`./labs doctor`), with bubblewrap. A
submission travels as bytes; a grade and the executed notebook come back. One task holds one CPU of its machine; labs
with engines take turns on each machine, as they do without Ray.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.grading import isolate
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.jobs import EngineTurn, Graded, Job, Options, grade_job
from labs_helpers.grading.records import Grade

ENGINE_CPUS = 2


def run(jobs: Sequence[Job], options: Options) -> Iterator[tuple[Job, Graded] | Job]:
    """Grade the jobs on the cluster at `options.ray`; yields as `batch.run_all` expects.

    Raises:
        LabsError: Ray is not installed, or there is no cluster at that address.
    """
    ray = _connect(options.ray or "auto")
    task = ray.remote(max_retries=1)(_remote)
    shipped = dataclasses.replace(options, ray=None)
    waiting = {}
    try:
        for job in jobs:
            cpus = ENGINE_CPUS if job.lab is not None and job.lab.uses_engines else 1
            data = _bytes(job)
            waiting[task.options(num_cpus=cpus).remote(job, data, shipped)] = job
            yield job
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done[0])
            yield job, _result(ray, done[0], job)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise LabsError("Ray is not installed", ".venv/bin/pip install 'ray==2.60.0', on every machine") from None
    _require_listener(address)
    try:
        if not ray.is_initialized():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, runtime_env=_environment())
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LabsError(f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}",
                        "start one: ray start --head, and give its address") from None  # fmt: skip
    return ray


def _require_listener(address: str) -> None:
    """Ask the port first: Ray itself waits two minutes for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        what = f"there is no Ray cluster at {address}: {error.strerror or error}"
        raise LabsError(what, "start one: ray start --head, and give its address") from None


def _environment() -> dict[str, dict[str, str]]:
    """This process's import path: the machines of a cluster have the same checkout at the same place."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}}


@functools.cache
def _isolation(trust: bool) -> Isolation:
    return Isolation(trusted=True) if trust else isolate.ready(install=False)


def _remote(job: Job, data: bytes, options: Options) -> Graded:
    """Runs on a machine of the cluster."""
    isolation = _isolation(options.trust)
    with tempfile.TemporaryDirectory(prefix="labs-cluster-") as folder:
        path = Path(folder) / "submission.ipynb"
        path.write_bytes(data)
        here = dataclasses.replace(job, submission=dataclasses.replace(job.submission, path=path))
        return grade_job(here, options, isolation, EngineTurn())


def _bytes(job: Job) -> bytes:
    try:
        return job.submission.path.read_bytes() if not job.submission.problem else b""
    except OSError:
        return b""


def _result(ray: Any, reference: Any, job: Job) -> Graded:
    """What came back; a worker that died is a failed grade, which a rerun repeats."""
    try:
        found: Graded = ray.get(reference)
        return found
    except ray.exceptions.RayError as error:
        why = f"the cluster lost this one: {type(error).__name__}: {str(error).splitlines()[-1][:200]}"
        lab = job.lab.id if job.lab else ""
        return Graded(Grade(student=job.submission.student, lab=lab, key=job.key, status="failed", reason=why))
