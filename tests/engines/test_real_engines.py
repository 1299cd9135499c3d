"""The engines that run on any machine, on the course model: same tokens, true counters, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from labs_helpers.engines import install, ports, process, reaper
from labs_helpers.engines.base import Server
from tests.engines.leftovers import nothing_left_of, port_of

SHM = Path("/dev/shm")
NEW_TOKENS = 32
QUESTIONS = (
    "What is the KV cache?",
    "What does time to first token measure?",
    "Why does decoding read every weight once per token?",
    "What does continuous batching do?",
    "How does a prefix cache help?",
    "What is speculative decoding?",
    "Start vLLM on port 8123.",
    "What is prefill?",
)
ENGINES = [
    pytest.param(name, marks=pytest.mark.engine(name)) for name in ("transformers", "llama.cpp", "vllm", "sglang")
]


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
    _, tokenizer = course_model()
    texts = (
        tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True, tokenize=False)
        for q in QUESTIONS
    )
    return tuple(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)


@functools.cache
def greedy(prompt: tuple[int, ...]) -> str:
    """What transformers' own greedy search says in fp32."""
    import torch

    model, tokenizer = course_model()
    with torch.inference_mode():
        ids = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS)
    return tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)


def complete(server: Server, prompt: Any, *, chat: bool = False, **more: Any) -> dict[str, Any]:
    body = {"model": server.model.name, "messages" if chat else "prompt": prompt, "temperature": 0, **more}
    status, text = ports.post(port_of(server), "/v1/chat/completions" if chat else "/v1/completions", body)
    assert status == 200, text
    return json.loads(text)


def stream(server: Server, prompt: Any, **more: Any) -> list[Any]:
    body = {
        "model": server.model.name,
        "prompt": prompt,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }
    status, text = ports.post(port_of(server), "/v1/completions", body)
    assert status == 200, text
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.strip()]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def settled(server: Server, tokens: int, before: Any) -> Any:
    """Counters once the last request is in them; an engine may count a moment after it answers."""
    deadline = time.monotonic() + 5
    while True:
        moved = asyncio.run(server.counters()).since(before)
        if moved.generation_tokens >= tokens or time.monotonic() > deadline:
            return moved
        time.sleep(0.05)


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One engine for all tests of this module that use it; what it leaves behind fails the last of them."""
    if not install.installed(request.param):
        pytest.fail(f"{request.param} is not installed: ./labs engines install {request.param}")
    with nothing_left_of(process.serve(request.param, precision="fp32")) as started:
        yield started


def test_greedy_text_is_that_of_transformers(server):
    answers = [complete(server, list(p), max_tokens=NEW_TOKENS)["choices"][0]["text"] for p in prompts()]
    assert answers == [greedy(p) for p in prompts()]


def test_all_at_once_gives_the_same_text_as_one_by_one(server):
    async def ask() -> list[str]:
        jobs = (asyncio.to_thread(complete, server, list(p), max_tokens=NEW_TOKENS) for p in prompts())
        return [answer["choices"][0]["text"] for answer in await asyncio.gather(*jobs)]

    assert asyncio.run(ask()) == [greedy(p) for p in prompts()]


def test_a_stream_carries_the_text_and_the_usage(server):
    prompt = prompts()[0]
    events = stream(server, list(prompt), max_tokens=NEW_TOKENS)
    assert "".join(c["text"] for e in events for c in e["choices"]) == greedy(prompt)
    usage = [e["usage"] for e in events if e.get("usage")]
    assert len(usage) == 1
    assert usage[0]["prompt_tokens"] == len(prompt)
    assert 1 <= usage[0]["completion_tokens"] <= NEW_TOKENS
    texts = [c["text"] for e in events for c in e["choices"] if c["text"]]
    assert len(texts) > usage[0]["completion_tokens"] / 2, "text must come token by token, not at the end"


def test_a_fixed_output_length_is_kept(server):
    answer = complete(server, list(prompts()[1]), max_tokens=57, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 57
    assert answer["choices"][0]["finish_reason"] == "length"


def test_counters_move_by_exactly_the_tokens_of_the_requests(server):
    before = asyncio.run(server.counters())
    used = [complete(server, list(p), max_tokens=17, ignore_eos=True)["usage"] for p in prompts()[:3]]
    moved = settled(server, 3 * 17, before)
    assert moved.generation_tokens == sum(u["completion_tokens"] for u in used) == 51
    assert moved.prompt_tokens == sum(u["prompt_tokens"] for u in used) == sum(len(p) for p in prompts()[:3])
    assert moved.requests in (3, None)
    assert moved.prefill_seconds > 0 and moved.decode_seconds > 0


def test_cached_prompt_tokens_are_counted_where_there_is_a_cache(server):
    text = list(prompts()[2]) * 30
    prompt = text[:400]
    complete(server, prompt, max_tokens=2)
    before = asyncio.run(server.counters())
    usage = complete(server, prompt, max_tokens=2, ignore_eos=True)["usage"]
    moved = settled(server, 2, before)
    assert moved.prompt_tokens == 400, "cached tokens are prompt tokens too"
    assert moved.cached_tokens == usage["prompt_tokens_details"]["cached_tokens"]
    assert (moved.cached_tokens > 0) == (server.engine.name != "transformers")


def test_chat_goes_through_the_models_own_template(server):
    asked = [{"role": "user", "content": QUESTIONS[0]}]
    answer = complete(server, asked, chat=True, max_tokens=NEW_TOKENS)
    assert answer["usage"]["prompt_tokens"] == len(prompts()[0])
    assert answer["choices"][0]["message"]["content"] == greedy(prompts()[0])


def test_memory_covers_at_least_the_weights(server):
    assert server.memory_bytes() > server.model.bytes_per_token


def test_every_process_of_the_engine_listens_on_the_loopback_only(server):
    """Also the sockets an engine opens for itself, such as PyTorch's rendezvous and the messages between processes."""
    listening = []
    for pid in (server.pid, *reaper.descendants(server.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            listening += [
                c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN
            ]
    assert port_of(server) in {address.port for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}


def test_the_model_answers_to_its_name(server):
    status, text = ports.request("GET", port_of(server), "/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(text)["data"]] == [server.model.name]
