"""The grader's own eye on the engines of a run.

A student's kernel writes the result file, so the file is a claim. The observer stands outside: it sees which programs
run in the sandbox, recognises an engine by its command line, and reads the engine's counters itself, through the
sandbox's network. The student's code cannot reach it. What it cannot rule out is written in docs/INSTRUCTORS.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labs_helpers.engines.base import Engine
from labs_helpers.errors import LabsError
from labs_helpers.grading import processes
from labs_helpers.grading.processes import Group
from labs_helpers.paths import ROOT

LOOK_EVERY_S = 0.2
YOUNG_S = 3.0
"""A process is looked at again until this age: between fork and exec it still shows its parent's command line."""
SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 0.2, 1.0
"""Growth between two readings took at least the first; where a busy grader read seldom, perhaps only the second."""
BLIND_S = 5.0
"""A look that comes this long after the one before may have missed an engine: nobody is accused then."""
SCRAPER_BYTES = 3 << 30


@dataclass(frozen=True)
class Reading:
    """An engine's totals at one moment (Unix time)."""

    at: float
    prompt_tokens: float | None
    generation_tokens: float | None


@dataclass
class Sighting:
    """One server process of an engine, as seen from outside."""

    engine: str
    pid: int
    started_at: float
    listening_at: float | None = None
    gone_at: float = 0.0
    """When it was first seen to be gone, or the run ended."""
    uncounted: bool = False
    """It answered, and counts nothing."""
    readings: list[Reading] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """Everything the observer saw of one engine during a run."""

    engine: str
    sightings: tuple[Sighting, ...]

    @property
    def answered(self) -> bool:
        """It listened on a port at least once."""
        return any(s.listening_at for s in self.sightings)

    @property
    def unreadable(self) -> bool:
        """It listened, but never told its counters."""
        return not self.counted and not any(s.uncounted for s in self.sightings)

    @property
    def counted(self) -> bool:
        """Its counters were read at least once."""
        return any(r.generation_tokens is not None for s in self.sightings for r in s.readings)

    def total(self, what: str) -> float:
        """Tokens counted over all its servers: 'prompt_tokens' or 'generation_tokens'."""
        return sum(max((getattr(r, what) or 0.0 for r in s.readings), default=0.0) for s in self.sightings)

    def peak_rate(self, what: str) -> float:
        """Highest rate at which a counter grew between two readings, tokens per second."""
        best = 0.0
        for sighting in self.sightings:
            rows = [(r.at, getattr(r, what) or 0.0) for r in sighting.readings]
            rows = [(sighting.listening_at or sighting.started_at, 0.0), *rows]
            for (a, before), (b, after) in itertools.pairwise(rows):
                best = max(best, (after - before) / min(max(b - a, SHORTEST_WINDOW_S), LONGEST_WINDOW_S))
        return best

    def unread(self, what: str) -> float:
        """Tokens that may have been counted after the last reading of each server, at the highest rate seen."""
        unseen = sum(max(s.gone_at - s.readings[-1].at, 0.0) for s in self.sightings if s.readings)
        return self.peak_rate(what) * unseen

    def quickest_start(self) -> float | None:
        """Seconds from a server's process start to its first listening socket, the quickest of all."""
        starts = [s.listening_at - s.started_at for s in self.sightings if s.listening_at]
        return min(starts) if starts else None


Evidence = Mapping[str, Seen]


class Observer:
    """Watches one run. Give `watch` to `Isolation.run`; afterwards `evidence()` says what was seen."""

    def __init__(self, engines: Sequence[Engine], read_only: Sequence[Path], *, trusted: bool = False) -> None:
        self.engines = {engine.name: engine for engine in engines}
        self.heads = {engine.name: head for engine in engines if (head := command_head(engine))}
        self.read_only = tuple(str(path) for path in (*read_only, ROOT, "/usr"))
        self.trusted = trusted
        self._sightings: list[Sighting] = []
        self._over = threading.Event()
        self.longest_gap_s = 0.0
        """Longest time between two looks: how long the grader was blind."""

    @property
    def was_blind(self) -> bool:
        return self.longest_gap_s > BLIND_S

    def evidence(self) -> Evidence:
        names = dict.fromkeys(s.engine for s in self._sightings)
        return {name: Seen(name, tuple(s for s in self._sightings if s.engine == name)) for name in names}

    @contextlib.contextmanager
    def watch(self, group: Group) -> Iterator[None]:
        alive = group.pids()
        if not self.heads or not alive:
            yield
            return
        scraper = self._scraper(alive[0])
        assert scraper.stdout
        scraper.stdout.readline()  # the run's input is sent after this: no engine can come and go unseen
        thread = threading.Thread(target=self._look, args=(group, scraper), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            scraper.kill()
            thread.join(timeout=10)
            scraper.wait()

    def _look(self, group: Group, scraper: subprocess.Popen[str]) -> None:
        settled: set[int] = set()
        gone: set[int] = set()
        servers: dict[int, Sighting] = {}
        looked = time.monotonic()
        while not self._over.wait(LOOK_EVERY_S):
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - looked)
            looked = time.monotonic()
            pids = group.pids()
            now = time.time()
            for pid in pids:
                if pid not in settled and pid not in servers:
                    started = processes.started_at(pid)
                    if engine := self._recognise(pid):
                        servers[pid] = Sighting(engine, pid, started)
                        self._sightings.append(servers[pid])
                    elif now - started > YOUNG_S:
                        settled.add(pid)
            alive = {pid: s for pid, s in servers.items() if pid in pids}
            for pid in servers.keys() - gone:
                servers[pid].gone_at = now
            gone |= servers.keys() - alive.keys()
            if not alive:
                continue
            ports = {pid: port for port, pid in processes.listeners(alive).items()}
            for pid, sighting in alive.items():
                if pid in ports:
                    sighting.listening_at = sighting.listening_at or now
                    found = _ask(scraper, self.engines[sighting.engine], ports[pid])
                    if isinstance(found, Reading):
                        sighting.readings.append(found)
                    sighting.uncounted |= found == "uncounted"
        self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - looked)
        for pid in servers.keys() - gone:
            servers[pid].gone_at = time.time()

    def _recognise(self, pid: int) -> str | None:
        argv = processes.command_line(pid)
        for name, head in self.heads.items():
            if argv[: len(head)] == head and self._runs_only_trusted_code(pid):
                return name
        return None

    def _runs_only_trusted_code(self, pid: int) -> bool:
        """No import path, preloaded library or working directory of this process can be written from inside."""
        environment = processes.environment(pid)
        paths = [
            part
            for name, value in environment.items()
            if name in ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONSTARTUP")
            for part in value.split(":")
            if part
        ]
        if self.trusted:
            return True
        return all(any(Path(part).is_relative_to(root) for root in self.read_only) for part in paths)

    def _scraper(self, inside: int) -> subprocess.Popen[str]:
        """A process of ours in the network of process `inside`: it can reach the engines, and nothing reaches it."""
        enter: list[str] = []
        if not self.trusted:
            user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
            enter = ["nsenter", "--target", str(inside), *user, "--net"]
        return subprocess.Popen(
            [*enter, sys.executable, "-m", "labs_helpers.grading.witness", *map(_kind, self.engines.values())],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )


def command_head(engine: Engine) -> list[str]:
    """The part of an engine's command line that says which program it is: up to its module or script.

    Empty for an engine that is not installed here: it cannot run in a submission either.
    """
    try:
        argv = list(engine.launch(engine.model(engine.precisions[0]), 1).argv)
    except (LabsError, OSError):
        return []
    for index, part in enumerate(argv):
        if part == "-m":
            return argv[: index + 2]
        if part.endswith(".py"):
            return argv[: index + 1]
    return argv[:1]


def _kind(engine: Engine) -> str:
    return f"{type(engine).__module__}:{type(engine).__qualname__}"


def _ask(scraper: subprocess.Popen[str], engine: Engine, port: int) -> Reading | str | None:
    """The engine's totals now; 'uncounted' when it has none, None when it does not answer."""
    assert scraper.stdin and scraper.stdout
    try:
        scraper.stdin.write(json.dumps([_kind(engine), f"http://127.0.0.1:{port}"]) + "\n")
        scraper.stdin.flush()
        found = json.loads(scraper.stdout.readline())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return "uncounted" if found == "uncounted" else None
    return Reading(time.time(), found["prompt_tokens"], found["generation_tokens"])


async def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SCRAPER_BYTES, SCRAPER_BYTES))
    engines = {
        kind: getattr(importlib.import_module(kind.split(":")[0]), kind.split(":")[1])() for kind in sys.argv[1:]
    }
    print("ready", flush=True)
    for line in sys.stdin:
        kind, url = json.loads(line)
        answer: dict[str, float | None] | str | None
        try:
            found = await asyncio.wait_for(engines[kind].counters(url), 2.0)
            answer = {"prompt_tokens": found.prompt_tokens, "generation_tokens": found.generation_tokens}
            if found.generation_tokens is None:
                answer = "uncounted"
        except (LabsError, TimeoutError, OSError):
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
