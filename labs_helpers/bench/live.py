"""What an engine says of itself while a load runs: its metrics page, fetched again and again, read afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from labs_helpers.bench.client import clock
from labs_helpers.engines.base import Server
from labs_helpers.engines.prometheus import parse
from labs_helpers.errors import LabsError

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USAGE, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"


@dataclass(frozen=True)
class Moment:
    """The engine at one time, in seconds since the first look."""

    at: float
    running: float
    waiting: float
    kv_usage: float
    """Share of the KV blocks in use, 0 to 1."""
    preemptions: float
    """Since the first look."""


@dataclass
class Live:
    """Looks at a running engine. `moments` is filled when the `watch` block ends."""

    label: str
    moments: list[Moment] = field(default_factory=list)
    _pages: list[tuple[float, str]] = field(default_factory=list, repr=False)

    @property
    def most_running(self) -> float:
        return max(moment.running for moment in self.moments)

    @property
    def highest_usage(self) -> float:
        return max(moment.kv_usage for moment in self.moments)

    def read(self) -> None:
        """Turn the pages into moments."""
        read = [(at, parse(page)) for at, page in self._pages]
        if not read:
            raise LabsError("no metrics page was fetched", "the load was over before the first look")
        (start, first), *_ = read
        if missing := [name for name in (RUNNING, WAITING, KV_USAGE, PREEMPTIONS) if name not in first]:
            raise LabsError(f"the metrics page has no {missing[0]}", "this view knows vLLM's names")
        self.moments = [
            Moment(at - start, raw[RUNNING], raw[WAITING], raw[KV_USAGE], raw[PREEMPTIONS] - first[PREEMPTIONS])
            for at, raw in read
        ]


@asynccontextmanager
async def watch(server: Server, every_s: float = 0.1) -> AsyncIterator[Live]:
    """Look at the server's metrics page every `every_s` seconds while the block runs.

    Pages are kept as text and parsed at the end, so that looking costs the client little. It costs the server a page
    each time: do not watch a load whose latency is to be reported.

    Raises:
        LabsError: the server shows no such page, or was never reached.
    """
    live = Live(f"{server.engine.name} {server.version} · {server.model.name} {server.precision}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

        async def look() -> None:
            async with session.get(server.base_url + "/metrics") as answer:
                answer.raise_for_status()
                page = await answer.text()
            live._pages.append((clock(), page))

        async def keep_looking() -> None:
            while True:
                await asyncio.sleep(every_s)
                await look()

        try:
            await look()
            looking = asyncio.create_task(keep_looking())
            try:
                yield live
            finally:
                looking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await looking
            await look()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LabsError(
                f"no metrics from {server.base_url}/metrics: {error or type(error).__name__}",
                "the engine may have died: look at its log",
            ) from error
    live.read()
