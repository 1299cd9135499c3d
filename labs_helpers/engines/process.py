"""Runs what an engine describes as a process of this machine: start, readiness, warm-up, stop.

`serve` is the one way in. The engine itself is started by `reaper.py`, which outlives this process just long enough
to leave nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from labs_helpers.engines import models, ports, reaper
from labs_helpers.engines.base import Engine, ModelSpec, Server
from labs_helpers.engines.progress import ProgressLine
from labs_helpers.engines.run import PortLost, Run, warm_up
from labs_helpers.errors import LabsError
from labs_helpers.paths import cache_dir

PORT_ATTEMPTS = 3
"""Free ports that are tried before a start fails because others keep taking them."""


def serve(
    engine: Engine | str,
    *,
    precision: str | None = None,
    model: ModelSpec | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    log_dir: Path | None = None,
    port: int | None = None,
    ready_timeout_s: float | None = None,
) -> Serving:
    """A server for the length of a `with` or `async with` block.

    Args:
        engine: an engine or its name.
        precision: e.g. 'fp32'; the engine's first when None.
        model: the course model when None; else a description, a folder of safetensors or a GGUF file.
        options: the engine's own options.
        log_dir: folder of the engine's log; the cache's when None.
        port: on 127.0.0.1; a free one when None.
        ready_timeout_s: how long it may take to answer; the engine's own limit when None.

    Raises (on entering the block):
        LabsError: no such engine, option, precision or model; it is not installed; another engine runs; the port is
            taken; or it died or stayed silent while starting, with its last log lines.
    """
    return Serving(engine, precision, model, dict(options or {}), log_dir, port, ready_timeout_s)


class Serving:
    """What `serve` returns: a context manager, for `with` and `async with` alike."""

    def __init__(
        self,
        engine: Engine | str,
        precision: str | None,
        model: ModelSpec | str | Path | None,
        options: dict[str, Any],
        log_dir: Path | None,
        port: int | None,
        ready_timeout_s: float | None,
    ) -> None:
        self._engine, self._precision, self._model, self._options = engine, precision, model, options
        self._log_dir, self._port, self._ready_timeout_s = log_dir, port, ready_timeout_s
        self._run: Run | None = None
        self._abandoned = threading.Event()

    def __enter__(self) -> Server:
        try:
            return self._start()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Server:
        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._abandoned.set()
            with contextlib.suppress(BaseException):
                await starting
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self._stop))

    def _start(self) -> Server:
        engine, model = self._prepare()
        if url := engine.running_at():
            return self._attach(engine, model, url)
        with ProgressLine() as line:
            run, startup_s = self._start_on_some_port(engine, model, line)
            line.show(f"{engine.title}: warming up")
            engine.load(run.base_url, model)
            warm_up(run.port, model.name, engine.title, run.log)
            line.show(
                f"{engine.title} {engine.version()}: {model.name} in {model.precision}, ready after {startup_s:.1f} s"
            )
        return Server(
            base_url=run.base_url,
            engine=engine,
            version=engine.version(),
            model=model,
            log_path=run.log,
            pid=run.engine_pid(),
            startup_s=startup_s,
            options=self._options,
        )

    def _start_on_some_port(self, engine: Engine, model: ModelSpec, line: ProgressLine) -> tuple[Run, float]:
        attempt = 1
        while True:
            port = self._port or ports.free()
            ports.require_free(port)
            spec = engine.launch(model, port, **self._options)
            self._run = Run(engine, spec, port, self._log_dir or cache_dir() / "logs")
            try:
                limit = self._ready_timeout_s or spec.ready_timeout_s
                return self._run, self._run.wait_until_ready(limit, line, self._abandoned)
            except PortLost:
                self._stop()
                if self._port or attempt == PORT_ATTEMPTS:
                    raise
                attempt += 1

    def _prepare(self) -> tuple[Engine, ModelSpec]:
        from labs_helpers import machine
        from labs_helpers.engines import registry

        engine = registry.get(self._engine) if isinstance(self._engine, str) else self._engine
        found = engine.availability(machine.detect())
        if not found.ok:
            raise LabsError(f"{engine.title} cannot run here: {found.reason}", found.remedy)
        return engine, models.choose(engine, self._model, self._precision)

    def _attach(self, engine: Engine, model: ModelSpec, url: str) -> Server:
        """Use a server that somebody else started and will stop."""
        engine.load(url, model)
        port = int(url.rsplit(":", 1)[1])
        warm_up(port, model.name, engine.title, None)
        return Server(
            base_url=url,
            engine=engine,
            version=engine.version(),
            model=model,
            log_path=Path(os.devnull),
            pid=ports.listener(port) or 0,
            startup_s=0.0,
            options=self._options,
        )

    def _stop(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.stop()


def tree_pss(pid: int) -> int:
    """Bytes of proportional set size of a process and everything below it.

    PSS counts a page that n processes share as 1/n in each (proc(5), smaps_rollup), so the sum is what the tree
    really occupies; summing RSS would count shared libraries and shared memory once per process.

    Raises:
        LabsError: there is no such process, or it may not be looked at.
    """
    total = 0
    for number in (pid, *reaper.descendants(pid)):
        try:
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError as error:
            if number == pid:
                raise LabsError(
                    f"cannot read the memory of process {pid}: {error.strerror}",
                    "it has ended, or belongs to another user",
                ) from error
    return total
