"""The live view and what is read from vLLM's pages, from a server that says the same as vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from labs_helpers import bench
from labs_helpers.engines.base import ModelSpec, Server
from labs_helpers.engines.vllm import VLLM
from labs_helpers.errors import LabsError

PAGE = """\
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {usage}
vllm:num_preemptions_total{{engine="0",model_name="m"}} {preemptions}
vllm:cache_config_info{{block_size="64",cache_dtype="fp8",engine="0",kv_cache_memory_bytes="16777216",\
num_gpu_blocks="102",num_cpu_blocks="None"}} 1.0
"""
IDS = [7, 8, 9, 8]
ROWS: list[Any] = [
    None,
    {"8": {"logprob": -0.5, "rank": 1}},
    {"9": {"logprob": -2.0, "rank": 3}, "4": {"logprob": -0.1, "rank": 1}},
    {"8": {"logprob": -1.0, "rank": 1}},
]


class Imitation:
    """Says on its page what it is told to say."""

    def __init__(self) -> None:
        self.now: dict[str, float] = {"running": 0, "waiting": 0, "usage": 0.0, "preemptions": 3}
        self.page = PAGE
        self.rows = ROWS
        self.asked: list[Any] = []

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.page.format(**self.now))

    async def completions(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        return web.json_response({"choices": [{"prompt_logprobs": self.rows}]})


@pytest.fixture
async def imitation() -> AsyncIterator[tuple[Imitation, Server]]:
    said = Imitation()
    app = web.Application()
    app.add_routes([web.get("/metrics", said.metrics), web.post("/v1/completions", said.completions)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    spec = ModelSpec("m", "nowhere", "bf16")
    yield said, Server(f"http://127.0.0.1:{port}", VLLM(), "0.0", spec, Path("none.log"), 1, 0.1)
    await runner.cleanup()


async def test_the_view_shows_what_the_engine_said_and_counts_preemptions_from_the_first_look(imitation) -> None:
    said, server = imitation
    async with bench.watch(server, every_s=0.01) as live:
        said.now = {"running": 5, "waiting": 2, "usage": 0.5, "preemptions": 4}
        await asyncio.sleep(0.1)
        said.now = {"running": 1, "waiting": 0, "usage": 0.9, "preemptions": 6}
    first, *_, last = live.moments
    assert (first.running, first.preemptions, first.at) == (0, 0, 0)
    assert (last.running, last.waiting, last.kv_usage, last.preemptions) == (1, 0, 0.9, 3)
    assert live.most_running == 5
    assert live.highest_usage == 0.9
    assert [m.at for m in live.moments] == sorted(m.at for m in live.moments)


async def test_looking_ends_with_the_block_also_on_an_error(imitation) -> None:
    _, server = imitation
    with pytest.raises(ZeroDivisionError):
        async with bench.watch(server, every_s=0.01):
            raise ZeroDivisionError
    others = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not any("keep_looking" in name for name in others)


async def test_a_page_without_these_figures_is_an_error(imitation) -> None:
    said, server = imitation
    said.page = "sglang:num_running_reqs 1\n"
    with pytest.raises(LabsError, match="has no vllm:num_requests_running"):
        async with bench.watch(server):
            pass


async def test_a_server_that_does_not_answer_is_an_error_in_words(imitation) -> None:
    _, server = imitation
    gone = Server("http://127.0.0.1:9", server.engine, "0.0", server.model, server.log_path, 1, 0.1)
    with pytest.raises(LabsError, match="no metrics from"):
        async with bench.watch(gone):
            pass


async def test_the_pool_by_the_engines_own_account(imitation) -> None:
    said, server = imitation
    pool = await bench.kv_pool(server)
    assert (pool.blocks, pool.block_size, pool.bytes, pool.dtype) == (102, 64, 16 * 2**20, "fp8")
    assert pool.tokens == 6528
    assert pool.bytes_per_token == pytest.approx(2570, abs=1)
    said.page = "vllm:num_requests_running 1\n"
    with pytest.raises(LabsError, match="how large its KV pool is"):
        await bench.kv_pool(server)


async def test_a_text_is_scored_token_by_token(imitation) -> None:
    said, server = imitation
    scored = await bench.score_text(server, IDS)
    assert scored.losses == (0.5, 2.0, 1.0)
    assert scored.choices == (8, 4, 8), "the first choice, also where the text has another token"
    assert said.asked[0]["prompt"] == IDS
    said.rows = ROWS[:2]
    with pytest.raises(LabsError, match="did not score a text of 4 tokens"):
        await bench.score_text(server, IDS)
