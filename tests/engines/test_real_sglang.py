"""SGLang's real server on the course's kernels: the tokens of transformers whatever the cache does.

Token ids are compared, by SGLang's own /generate, in fp32. A file of its own: each server is shared by few tests.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from labs_helpers import bench
from labs_helpers.engines import install, ports, process, reaper
from labs_helpers.engines.base import Server
from labs_helpers.errors import LabsError
from tests.engines.leftovers import nothing_left_of, port_of

pytestmark = pytest.mark.engine("sglang")
NEW_TOKENS = 64


@functools.cache
def course_model() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from labs_helpers.model.spec import course_model_dir

    folder = course_model_dir("fp32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@functools.cache
def prompts() -> tuple[tuple[int, ...], ...]:
    """24 prompts of very different lengths: chat turns on their own, and behind a part of one of two long texts."""
    _, tokenizer = course_model()
    questions = (
        "What is the KV cache?",
        "What does time to first token measure?",
        "Why does decoding read every weight once per token?",
        "What does continuous batching do?",
        "How does a prefix cache help?",
        "What is speculative decoding?",
        "Start vLLM on port 8123.",
        "What is prefill?",
        "Explain how a bicycle keeps its balance.",
        "Write JSON with a name and a port.",
        "How do I bake bread without an oven?",
        "What is a block table?",
    )

    def chat(text: str) -> tuple[int, ...]:
        turn = [{"role": "user", "content": text}]
        shown = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return tuple(tokenizer(shown, add_special_tokens=False)["input_ids"])

    long = (" ".join(questions) + " ") * 4, ("A request waits in the queue until a step has room for it. ") * 12
    alone = [chat(question) for question in questions]
    behind = [chat(long[n % 2][: 90 * (n + 1)] + question) for n, question in enumerate(questions)]
    return (*alone, *behind)


@functools.cache
def greedy() -> tuple[list[int], ...]:
    """What transformers' own greedy search writes to each prompt in fp32, past the end of the answer too."""
    import torch

    model, _ = course_model()
    width = max(map(len, prompts()))
    padded = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts()])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts()])
    with torch.inference_mode():
        ids = model.generate(
            padded,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )
    return tuple(ids[:, width:].tolist())


def longest() -> tuple[tuple[int, ...], list[int]]:
    """The longest prompt and what is written to it."""
    return max(zip(prompts(), greedy(), strict=True), key=lambda pair: len(pair[0]))


def generate(server: Server, prompt: Any, **sampling: Any) -> tuple[list[int], dict[str, Any]]:
    """Token ids and SGLang's own account of the request."""
    body = {
        "input_ids": list(prompt),
        "sampling_params": {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True, **sampling},
    }
    status, text = ports.post(port_of(server), "/generate", body, timeout_s=300)
    assert status == 200, text
    answer = json.loads(text)
    return answer["output_ids"], answer["meta_info"]


def all_at_once(server: Server) -> list[tuple[list[int], dict[str, Any]]]:
    """All prompts together."""
    with ThreadPoolExecutor(len(prompts())) as pool:
        return list(pool.map(functools.partial(generate, server), prompts()))


def forget(server: Server) -> None:
    """Empty the radix cache."""
    deadline = time.monotonic() + 60
    while ports.post(port_of(server), "/flush_cache", {})[0] != 200:  # it refuses while a request is being cleared
        assert time.monotonic() < deadline
        time.sleep(0.2)


def serving(**options: Any) -> Iterator[Server]:
    """One server; what it leaves behind fails the last test that used it."""
    if not install.installed("sglang"):
        pytest.fail("sglang is not installed: ./labs engines install sglang")
    with nothing_left_of(process.serve("sglang", precision="fp32", options=options)) as server:
        yield server


def refused(server: Server, **body: Any) -> str:
    """The message of a request that must be refused, through the course's own client."""
    request = bench.Request(prompt="Hello", max_tokens=8, extra=body)
    with pytest.raises(LabsError) as caught:
        asyncio.run(bench.run(server, [request], warmup=False))
    return str(caught.value)


class TestRadixCache:
    """One server with pages of one token and room for everything."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        yield from serving()

    def test_cold_and_one_by_one(self, server):
        for prompt, expected in zip(prompts(), greedy(), strict=True):
            forget(server)
            ids, about = generate(server, prompt)
            assert about["cached_tokens"] == 0
            assert ids == expected

    def test_warm_and_one_by_one(self, server):
        for prompt, expected in zip(prompts(), greedy(), strict=True):
            generate(server, prompt, max_new_tokens=1)
            ids, about = generate(server, prompt)
            assert about["cached_tokens"] == len(prompt) - 1, "all but the token whose logits are needed"
            assert ids == expected

    def test_every_length_of_a_hit(self, server):
        """A prefix of any length in the cache, the rest computed."""
        prompt, expected = longest()
        for kept in (1, 2, len(prompt) // 3, len(prompt) // 2, len(prompt) - 2):
            forget(server)
            generate(server, prompt[:kept], max_new_tokens=1)
            ids, about = generate(server, prompt)
            assert about["cached_tokens"] == kept
            assert ids == expected

    @pytest.mark.parametrize("warm", [False, True])
    def test_ragged_and_all_at_once(self, server, warm):
        if not warm:
            forget(server)
        answers = all_at_once(server)
        assert [ids for ids, _ in answers] == list(greedy())
        if warm:
            assert [about["cached_tokens"] for _, about in answers] == [len(prompt) - 1 for prompt in prompts()]

    def test_a_schema_a_regex_and_a_grammar_that_are_invalid_are_refused_in_words(self, server):
        assert "Unsupported type" in refused(server, json_schema='{"type": "nonsense"}')
        assert "Regex parsing error" in refused(server, regex="[a-")
        assert "EBNF parser error" in refused(server, ebnf="root ::= nothing")
        assert generate(server, prompts()[0])[0] == greedy()[0], "and it serves on"

    def test_a_constrained_answer_keeps_to_its_schema(self, server):
        schema = {"type": "object", "properties": {"port": {"type": "integer"}}, "required": ["port"]}
        ids, _ = generate(server, prompts()[6], json_schema=json.dumps(schema), ignore_eos=False)
        _, tokenizer = course_model()
        assert isinstance(json.loads(tokenizer.decode(ids, skip_special_tokens=True))["port"], int)

    def test_killed_in_the_middle_of_a_stream_the_client_says_so(self, server):
        """The last test of this server: it ends it."""
        request = bench.Request(prompt="Hello", max_tokens=3000)

        def kill() -> None:
            time.sleep(2)
            for pid in (server.pid, *reaper.descendants(server.pid)):
                os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(LabsError, match=r"connection|answer"):
            asyncio.run(bench.run(server, [request], warmup=False))


class TestPagesAndPressure:
    """Pages of 16 tokens, and a pool so small that it must forget."""

    POOL = 512

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        yield from serving(page_size=16, max_total_tokens=cls.POOL)

    def test_whole_pages_are_shared_and_nothing_less(self, server):
        prompt, expected = longest()
        for kept in (15, 16, 47, 100):
            forget(server)
            generate(server, prompt[:kept], max_new_tokens=1)
            ids, about = generate(server, prompt, max_new_tokens=16)
            assert about["cached_tokens"] == kept // 16 * 16
            assert ids == expected[:16]

    def test_with_too_little_room_answers_stay_right(self, server):
        """All prompts together need several times the pool: requests wait, prefixes are evicted."""
        assert sum(map(len, prompts())) > 2 * self.POOL
        for _ in range(2):
            assert [ids for ids, _ in all_at_once(server)] == list(greedy())
        counters = asyncio.run(server.counters())
        assert counters.raw["sglang:evicted_tokens_total"] > 0

    def test_a_prompt_longer_than_the_pool_is_refused_in_words(self, server):
        request = bench.Request(prompt=[5] * (self.POOL + 200), max_tokens=8)
        with pytest.raises(LabsError, match=r"longer|exceed"):
            asyncio.run(bench.run(server, [request], warmup=False))
        assert generate(server, prompts()[0])[0] == greedy()[0], "and it serves on"
