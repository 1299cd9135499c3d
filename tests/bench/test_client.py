"""The client against a server that knows when it emitted what.

No claim here rests on the machine being quick. The oracle and the client share one clock, so a stamp is never before
its emission, and a latency differs from the truth exactly by how late its stamps were.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from labs_helpers.bench.client import open_session, stream
from labs_helpers.bench.request import Request
from labs_helpers.bench.sample import Sample, succeeded
from labs_helpers.bench.wire import OLLAMA, OPENAI, Wire
from labs_helpers.errors import LabsError
from tests.oracle.process import MODEL, OracleProcess


async def ask(
    oracle: OracleProcess,
    *,
    wire: Wire = OPENAI,
    model: str = MODEL,
    stall_s: float = 20.0,
    chat: bool = True,
    max_tokens: int = 17,
    **script: Any,
) -> Sample:
    request = Request("five words in this prompt", chat=chat, max_tokens=max_tokens, extra={"oracle": script})
    async with open_session() as session:
        return await stream(session, oracle.base_url, model, request, wire=wire, stall_s=stall_s)


SCRIPTS: list[dict[str, Any]] = [
    {"detail": "usage"},
    {"detail": "usage", "tokens_per_event": 4, "role_event": True},
    {"detail": "token_ids", "tokens_per_event": 4, "first_tokens": 3, "role_event": True},
    {"detail": "logprobs", "tokens_per_event": 4},
    {"detail": "timings", "tokens_per_event": 5, "reasoning": 2},
    {"detail": "usage", "hidden_eos": True},
    {"detail": "none"},
    {"detail": "none", "hidden_eos": True},
]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completions"])
async def test_every_figure_is_the_truth_plus_the_lateness_of_its_stamps(
    oracle: OracleProcess, script: dict[str, Any], chat: bool
) -> None:
    sample = await ask(oracle, chat=chat, **script)
    assert sample.error is None
    (truth,) = oracle.truths()
    emitted = truth["emitted"]
    assert [e.tokens for e in sample.events] == [tokens for _, tokens in emitted]
    late = [event.time - at for event, (at, _) in zip(sample.events, emitted, strict=True)]
    late_end = sample.end - truth["ended"]
    assert min(*late, late_end) >= 0  # so neither a role-only nor an empty event was taken for content
    assert sample.ttft_s == pytest.approx(emitted[0][0] - sample.intended + late[0], abs=1e-9)
    after_first = 17 - emitted[0][1]
    true_tpot = (truth["ended"] - emitted[0][0]) / after_first
    assert sample.tpot_s == pytest.approx(true_tpot + (late_end - late[0]) / after_first, abs=1e-9)
    shown = sum(tokens for _, tokens in emitted)
    assert sample.itl_s.sum() == pytest.approx(emitted[-1][0] - emitted[0][0] + late[-1] - late[0], abs=1e-9)
    assert len(sample.itl_s) == shown - emitted[0][1]
    assert sample.completion_tokens == 17


async def test_content_stamps_fall_between_emissions(oracle: OracleProcess) -> None:
    """Most events are stamped before the next one is emitted: they are not read in heaps."""
    sample = await ask(oracle, detail="usage", gap_ms=100.0, max_tokens=7)
    at = [t for t, _ in oracle.truths()[0]["emitted"]]
    in_time = [event.time < following for event, following in zip(sample.events, at[1:], strict=False)]
    assert sum(in_time) > len(in_time) / 2


async def test_reasoning_is_output_and_kept_apart(oracle: OracleProcess) -> None:
    sample = await ask(oracle, reasoning=2)
    assert len(sample.events) == 17
    assert sample.reasoning == "#0 tok " and sample.text == "tok " * 15


async def test_tokens_are_conserved_where_the_server_does_not_say(oracle: OracleProcess) -> None:
    sample = await ask(oracle, tokens_per_event=4, first_tokens=4)
    assert sum(e.tokens for e in sample.events) == 17 and len(sample.events) == 5


async def test_ollama_streams_read_alike(oracle: OracleProcess) -> None:
    sample = await ask(oracle, wire=OLLAMA, role_event=True)
    assert sample.error is None
    assert [e.tokens for e in sample.events] == [1] * 17
    assert (sample.completion_tokens, sample.prompt_tokens) == (17, 5)
    assert all(event.time >= at for event, (at, _) in zip(sample.events, oracle.truths()[0]["emitted"], strict=True))


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
async def test_line_ends_of_the_standard(oracle: OracleProcess, newline: str) -> None:
    sample = await ask(oracle, newline=newline, max_tokens=4)
    assert (sample.error, sample.text, len(sample.events)) == (None, "#0 tok tok tok ", 4)


async def test_characters_cut_by_the_network_arrive_whole(oracle: OracleProcess) -> None:
    sample = await ask(oracle, word="語🙂é ", pieces=40, max_tokens=4)
    assert (sample.error, sample.text) == (None, "#0 " + "語🙂é " * 3)


async def test_an_event_may_be_larger_than_any_buffer(oracle: OracleProcess) -> None:
    sample = await ask(oracle, padding=3_000_000, max_tokens=3)
    assert (sample.error, len(sample.events)) == (None, 3)


async def test_cached_tokens_are_read_from_usage(oracle: OracleProcess) -> None:
    assert (await ask(oracle, cached=4)).cached_tokens == 4
    assert (await ask(oracle)).cached_tokens is None


@pytest.mark.parametrize(
    ("fault", "said", "events"),
    [
        ("http500", "HTTP 500: the oracle was told to fail", 0),
        ("stall", "no data from the server for 2 s", 3),
        ("reset", "the connection broke", 3),
        ("truncate", "without a finish reason", 3),
        ("malformed", "not a JSON object", 3),
        ("error_event", "the engine ran out of memory", 3),
        ("no_usage", "no usage", 17),
        ("not_streaming", "without streaming", 0),
        ("empty", "without an event", 0),
    ],
)
async def test_a_fault_is_an_error_of_its_sample(oracle: OracleProcess, fault: str, said: str, events: int) -> None:
    sample = await ask(oracle, fault=fault, stall_s=2.0 if fault == "stall" else 20.0)
    assert said in (sample.error or "")
    assert len(sample.events) == events  # what came before the fault is kept


@pytest.mark.parametrize(("wire", "said"), [(OPENAI, "does not exist"), (OLLAMA, "not found")])
async def test_a_wrong_model_name_is_told_the_right_ones(oracle: OracleProcess, wire: Wire, said: str) -> None:
    sample = await ask(oracle, model="Qwen/Qwen3-8B", wire=wire)
    assert sample.error is not None
    assert "HTTP 404" in sample.error and said in sample.error
    assert "'Qwen/Qwen3-8B'" in sample.error and "offers 'oracle'" in sample.error


async def test_a_slow_stream_is_not_a_stalled_one(oracle: OracleProcess) -> None:
    """The patience counts from the last data, not from the beginning."""
    sample = await ask(oracle, gap_ms=300.0, max_tokens=9, stall_s=1.8)
    assert sample.error is None
    assert sample.e2e_s > 1.8


async def test_nobody_listening_is_an_error_of_its_sample() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with open_session() as session:
            sample = await stream(session, url, MODEL, Request("hi"))
    assert "the connection broke" in (sample.error or "") and sample.events == ()


@pytest.mark.parametrize("wire", [OPENAI, OLLAMA])
async def test_temperature_zero_stays_zero(oracle: OracleProcess, wire: Wire) -> None:
    await ask(oracle, wire=wire, max_tokens=1)
    body = oracle.truths()[0]["body"]
    assert body.get("options", body)["temperature"] == 0


async def test_only_a_load_that_failed_altogether_raises(oracle: OracleProcess) -> None:
    good, bad = await ask(oracle, max_tokens=1), await ask(oracle, fault="http500")
    assert succeeded([good, bad]) == (good,)
    with pytest.raises(LabsError, match=r"all 2 requests failed: 2 x HTTP 500: the oracle was told to fail"):
        succeeded([bad, bad])
