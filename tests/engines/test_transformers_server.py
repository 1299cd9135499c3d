"""The baseline server speaks the OpenAI wire format, counts truly, and refuses what it cannot do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from labs_helpers.engines.prometheus import parse
from labs_helpers.engines.transformers_server import Baseline, application

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random model whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    where = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, "<end>"])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(where)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=256,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(where)
    return where


@pytest.fixture
async def client(folder):
    server = Baseline(folder, "tiny", "float32", 128)
    async with TestClient(TestServer(application(server))) as started:
        yield started


async def post(client: TestClient, path: str, **body: Any) -> tuple[int, str]:
    answer = await client.post(path, json={"temperature": 0, **body})
    return answer.status, await answer.text()


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def counters(client: TestClient) -> dict[str, float]:
    return parse(await (await client.get("/metrics")).text())


async def test_text_and_its_token_ids_give_the_same_answer(client, folder):
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)("héllo")["input_ids"]
    _, by_text = await post(client, "/v1/completions", prompt="héllo", max_tokens=8)
    _, by_ids = await post(client, "/v1/completions", prompt=ids, max_tokens=8)
    assert json.loads(by_text)["choices"] == json.loads(by_ids)["choices"]
    assert json.loads(by_text)["usage"] == json.loads(by_ids)["usage"]
    assert json.loads(by_ids)["usage"]["prompt_tokens"] == len("héllo".encode()) == len(ids)


async def test_a_stream_is_the_whole_answer_in_pieces_with_usage_at_its_end(client):
    _, whole = await post(client, "/v1/completions", prompt=[1, 2, 3], max_tokens=20, ignore_eos=True)
    _, text = await post(
        client,
        "/v1/completions",
        prompt=[1, 2, 3],
        max_tokens=20,
        ignore_eos=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    *pieces, last = events(text)
    assert "".join(p["choices"][0]["text"] for p in pieces) == json.loads(whole)["choices"][0]["text"]
    assert [p["choices"][0]["finish_reason"] for p in pieces][-1] == "length"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 20 and last["usage"]["prompt_tokens"] == 3


async def test_without_being_asked_a_stream_has_no_usage(client):
    _, text = await post(client, "/v1/completions", prompt=[1], max_tokens=2, stream=True)
    assert all("usage" not in event for event in events(text))


async def test_chat_uses_the_template_and_begins_with_the_role(client):
    asked = [{"role": "user", "content": "hi"}]
    _, text = await post(client, "/v1/chat/completions", messages=asked, max_tokens=3, stream=True)
    first, *rest = events(text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(e["object"] == "chat.completion.chunk" for e in (first, *rest))
    _, whole = await post(client, "/v1/chat/completions", messages=asked, max_tokens=3)
    assert json.loads(whole)["usage"]["prompt_tokens"] == len("user: hi\n")
    said = "".join(e["choices"][0]["delta"].get("content", "") for e in rest)
    assert said == json.loads(whole)["choices"][0]["message"]["content"]


async def test_counters_are_exact_when_the_answer_has_been_read(client):
    before = await counters(client)
    for size in (5, 7):
        await post(client, "/v1/completions", prompt=list(range(size)), max_tokens=size, ignore_eos=True)
    after = await counters(client)
    moved = {
        name: after[f"baseline:{name}_total"] - before[f"baseline:{name}_total"]
        for name in ("prompt_tokens", "generation_tokens", "requests", "prefill_seconds", "decode_seconds")
    }
    assert (moved["prompt_tokens"], moved["generation_tokens"], moved["requests"]) == (12, 12, 2)
    assert moved["prefill_seconds"] > 0 and moved["decode_seconds"] > 0


async def test_requests_at_once_are_all_answered_and_not_mixed(client):
    alone = [json.loads((await post(client, "/v1/completions", prompt=[n], max_tokens=9))[1]) for n in range(5)]
    together = await asyncio.gather(*(post(client, "/v1/completions", prompt=[n], max_tokens=9) for n in range(5)))
    assert [json.loads(t)["choices"] for _, t in together] == [a["choices"] for a in alone]


async def test_a_client_that_leaves_frees_the_server(client):
    answer = await client.post(
        "/v1/completions", json={"prompt": [1], "max_tokens": 120, "stream": True, "ignore_eos": True}
    )
    await answer.content.readany()
    answer.close()
    status, _ = await asyncio.wait_for(post(client, "/v1/completions", prompt=[2], max_tokens=1), 20)
    assert status == 200
    assert (await counters(client))["baseline:generation_tokens_total"] < 120


async def test_temperature_zero_is_greedy_and_not_the_default(client):
    answers = {
        (await post(client, "/v1/completions", prompt=[9, 8], max_tokens=12))[1].split('"text"')[1][:60]
        for _ in range(3)
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"prompt": "x", "model": "other"}, 404, "this server has 'tiny'"),
        ({"prompt": ""}, 400, "prompt is empty"),
        ({"prompt": []}, 400, "prompt is empty"),
        ({}, 400, "one text or one list of token ids"),
        ({"prompt": ["a", "b"]}, 400, "one text or one list of token ids"),
        ({"prompt": [300]}, 400, "0..256"),
        ({"prompt": [1], "max_tokens": 0}, 400, "max_tokens is 0"),
        ({"prompt": [1], "max_tokens": 128}, 400, "exceed 128 positions"),
        ({"prompt": [1], "n": 2}, 400, "n=2 is not supported"),
        ({"prompt": [1], "top_p": 0.5}, 400, "top_p=0.5 is not supported"),
        ({"prompt": [1], "temperature": "hot"}, 400, "could not convert"),
    ],
)
async def test_what_it_cannot_do_is_refused_and_said(client, body, status, words):
    answer = await client.post("/v1/completions", json=body)
    assert answer.status == status
    assert words in (await answer.json())["error"]["message"]


async def test_health_and_models(client):
    assert (await client.get("/health")).status == 200
    models = await (await client.get("/v1/models")).json()
    assert [m["id"] for m in models["data"]] == ["tiny"]
    assert models["data"][0]["max_model_len"] == 128
