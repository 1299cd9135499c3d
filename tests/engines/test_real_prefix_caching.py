"""Real prefix caches against the course's predictions, and SGLang's own tree against the course's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from labs_helpers import bench
from labs_helpers.engines import inside, install, process
from labs_helpers.engines.base import Server
from labs_helpers.errors import LabsError
from labs_helpers.model import workloads

POOL = 2048


@pytest.fixture(scope="class")
def sglang() -> Iterator[Server]:
    if not install.installed("sglang"):
        pytest.fail("sglang is not installed: ./labs engines install sglang")
    with process.serve("sglang", precision="fp32", options={"max_total_tokens": POOL}) as server:
        yield server


def forget(server: Server) -> None:
    async def flush() -> None:
        async with aiohttp.ClientSession() as session:
            answer = await session.post(server.base_url + "/flush_cache", params={"timeout": 10})
            answer.raise_for_status()

    asyncio.run(flush())


def sent(server: Server, prompts: Any, **more: Any) -> bench.Run:
    given = {"concurrency": 1, "output_tokens": 2, "warmup": False, "progress": False, **more}
    return asyncio.run(bench.run(server, prompts, **given))


def sglangs_own_tree(calls: list[Any]) -> list[int]:
    """Runs in SGLang's environment: what its tree answers to the same calls."""
    from array import array

    from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams
    from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey

    tree = RadixCache.create_simulated()
    found = []
    for method, tokens in calls:
        key = RadixKey(array("q", tokens))
        if method == "match":
            found.append(tree.match_prefix(MatchPrefixParams(key=key)).device_prefix_len)
        else:
            found.append(len(tokens) - tree.insert(InsertParams(key=key)).prefix_len)
    return [*found, tree.total_size()]


@pytest.mark.engine("sglang")
class TestSglang:
    """One server, which ends with the class: vLLM's tests need the room."""

    def test_sglang_takes_from_its_tree_exactly_what_was_predicted(self, sglang):
        forget(sglang)
        work = workloads.branches(2, 2, 2, sizes=(32, 96, 40, 24), seed=3)
        run = sent(sglang, work)
        assert [s.cached_tokens for s in run.samples] == bench.predict_cached([(prompt, []) for prompt in work])
        (total,) = run.measurements("cached_tokens")
        assert total.value == total.witness, "the answers and the counters tell the same"

    def test_under_pressure_the_simulated_hit_rate_is_near_the_measured_one(self, sglang):
        forget(sglang)
        work = workloads.popular(12, 40, 256, seed=4)
        (rate,) = sent(sglang, work).measurements("cache_hit_rate")
        cached = bench.simulate(bench.RadixTree(), [(prompt, [0, 0]) for prompt in work], POOL)
        assert rate.value == pytest.approx(sum(cached) / sum(map(len, work)), abs=0.06)

    def test_refusals_are_one_sentence_each_and_the_server_lives_on(self, sglang):
        no_schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}
        refused = (
            (workloads.shared_prefix(1, POOL)[0], {}),
            ("Answer:", {"response_format": no_schema}),
            ("Answer:", {"regex": "[a-"}),
            ("Answer:", {"ebnf": "root ::= ("}),
        )
        for prompt, constraint in refused:
            with pytest.raises(LabsError, match="all 1 requests failed") as caught:
                sent(sglang, [prompt], extra=constraint, ignore_eos=False)
            assert "Traceback" not in str(caught.value)
        assert sent(sglang, ["Hello"]).good

    def test_a_program_in_sglangs_language_runs_on_the_server(self, sglang):
        def program(url, words):
            import sglang as sgl

            sgl.set_default_backend(sgl.RuntimeEndpoint(url, chat_template_name="chatml"))

            @sgl.function
            def choose(s, word):
                s += sgl.user(f"Is {word} a model or an engine?")
                s += sgl.assistant("It is " + sgl.select("kind", ["a model", "an engine"]))
                branches = s.fork(2)
                for branch in branches:
                    branch += sgl.gen("more", max_tokens=4, temperature=0)
                s["same"] = branches[0]["more"] == branches[1]["more"]

            states = choose.run_batch([{"word": word} for word in words], num_threads=2)
            return [[state["kind"], state["same"]] for state in states]

        before = asyncio.run(sglang.counters())
        found = inside.call(sglang, program, sglang.base_url, ["vLLM", "Qwen3-8B"])
        assert [row[1] for row in found] == [True, True]
        assert {row[0] for row in found} <= {"a model", "an engine"}
        assert asyncio.run(sglang.counters()).since(before).cached_tokens > 0

    def test_the_courses_tree_answers_as_sglangs_own(self, sglang):
        draw = random.Random(5)
        calls = [
            (draw.choice(("match", "insert")), [draw.randrange(3) for _ in range(draw.randint(1, 12))])
            for _ in range(400)
        ]
        tree = bench.RadixTree()
        ours = [getattr(tree, method)(tokens) for method, tokens in calls]
        assert inside.call(sglang, sglangs_own_tree, calls) == [*ours, tree.held]


@pytest.mark.engine("vllm")
def test_vllm_takes_whole_blocks_exactly_as_predicted():
    with process.serve("vllm", precision="fp32", options={"block_size": 128}) as server:
        work = workloads.branches(2, 2, 2, sizes=(100, 200, 90, 40), seed=6)
        run = sent(server, work)
        assert [s.cached_tokens for s in run.samples] == bench.predict_cached([(p, []) for p in work], 128)
    with process.serve("vllm", precision="fp32", options={"block_size": 128, "prefix_caching": False}) as server:
        assert sum(s.cached_tokens or 0 for s in sent(server, work).samples) == 0
