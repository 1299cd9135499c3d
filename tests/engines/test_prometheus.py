"""Samples are found by name and by label, and what was counted between two readings is exact."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from labs_helpers.engines.base import Counters
from labs_helpers.engines.llamacpp import LlamaCpp
from labs_helpers.engines.prometheus import parse, scrape
from labs_helpers.engines.vllm import VLLM
from labs_helpers.errors import LabsError

VLLM_PAGE = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 40.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 3.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.5
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 5.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 80.0
"""
LLAMA_PAGE = """\
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 30
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 10
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 80
"""


def test_a_sample_is_found_by_name_and_by_its_telling_labels():
    samples = parse(VLLM_PAGE)
    assert samples["vllm:request_success_total"] == 5
    assert samples['vllm:request_success_total{finished_reason="stop"}'] == 2
    assert samples["vllm:time_to_first_token_seconds_sum"] == 0.5
    assert not [name for name in samples if "_bucket" in name or "_created" in name or "model_name" in name]


@pytest.fixture
async def serve_page():
    servers = []

    async def start(page: str, status: int = 200) -> str:
        async def metrics(_: web.Request) -> web.Response:
            return web.Response(text=page, status=status)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("/")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


async def test_vllms_totals(serve_page):
    found = await VLLM().counters(await serve_page(VLLM_PAGE))
    assert (found.prompt_tokens, found.generation_tokens, found.requests) == (40, 80, 5)
    assert found.cached_tokens is None, "a counter that is not on the page is unknown, not zero"


async def test_llama_cpps_prompt_tokens_are_computed_and_cached_ones(serve_page):
    found = await LlamaCpp().counters(await serve_page(LLAMA_PAGE))
    assert (found.prompt_tokens, found.cached_tokens, found.generation_tokens) == (40, 10, 80)


async def test_no_page_is_an_error_that_says_where(serve_page):
    url = await serve_page("gone", status=404)
    with pytest.raises(LabsError, match=f"no metrics from {url}/metrics"):
        await scrape(url)
    with pytest.raises(LabsError, match="no metrics from"):
        await scrape("http://127.0.0.1:1")


def test_what_was_added_between_two_readings():
    before = Counters(prompt_tokens=5, generation_tokens=None, raw={"a": 1})
    moved = Counters(prompt_tokens=8, generation_tokens=9, raw={"a": 3, "b": 2}).since(before)
    assert moved.prompt_tokens == 3
    assert moved.generation_tokens is None
    assert moved.raw == {"a": 2, "b": 2}
