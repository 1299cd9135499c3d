"""How streams read: every engine's format, cut by the network wherever it likes."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.bench.ollama import read_ollama
from labs_helpers.bench.openai import read_openai
from labs_helpers.bench.request import Request, with_unique_prefix
from labs_helpers.bench.sample import Capture, Sample, read
from labs_helpers.bench.sse import sse_events
from labs_helpers.bench.wire import OLLAMA, OPENAI, Wire
from labs_helpers.errors import LabsError

# Streams as the engines send them, shortened.
VLLM_CHAT = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant",'
    b'"content":""},"finish_reason":null}],"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}\n\n'
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}],'
    b'"usage":{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2}}\n\n'
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Yes, it is"},"finish_reason":null}],'
    b'"usage":{"prompt_tokens":9,"total_tokens":15,"completion_tokens":6}}\n\n'
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"total_tokens":16,"completion_tokens":7}}\n\n'
    b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":9,"total_tokens":16,"completion_tokens":7,'
    b'"prompt_tokens_details":{"cached_tokens":8}}}\n\n'
    b"data: [DONE]\n\n"
)
LLAMA_CPP = (
    b'data: {"choices":[{"text":"Hel","index":0,"logprobs":null,"finish_reason":null}],"object":"text_completion"}\n\n'
    b'data: {"choices":[{"text":"lo","index":0,"logprobs":null,"finish_reason":null}],"object":"text_completion"}\n\n'
    b'data: {"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"object":"text_completion"}\n\n'
    b'data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7},"timings":{"cache_n":4,'
    b'"prompt_n":1,"prompt_ms":3.5,"prompt_per_second":285.7,"predicted_n":2,"predicted_ms":4.0,'
    b'"predicted_per_second":500.0}}\n\n'
    b"data: [DONE]\n\n"
)
OLLAMA_CHAT = (
    b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"lo"},"done":false}\n'
    b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,'
    b'"done_reason":"length","total_duration":9000000,"prompt_eval_count":26,"prompt_eval_duration":3000000,'
    b'"eval_count":2,"eval_duration":4000000}\n'
)


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + orjson.dumps(e) + b"\n\n" for e in events)


def arrived(body: bytes, cuts: list[int], wire: Wire = OPENAI) -> Sample:
    """The sample of a body that arrived in these pieces, one per second from t=1 on."""
    ends = tuple(sorted({len(body), *(c % len(body) for c in cuts)} - {0}))
    return read(Capture(0.0, 0.0, tuple(float(i + 1) for i in range(len(ends))), ends, body), wire)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("body", "wire"), [(VLLM_CHAT, OPENAI), (LLAMA_CPP, OPENAI), (OLLAMA_CHAT, OLLAMA)])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
def test_any_chunking_yields_the_same_events(body: bytes, wire: Wire, newline: bytes, cuts: list[int]) -> None:
    if wire is OLLAMA and newline == b"\r":
        return  # NDJSON lines end with a line feed
    body = body.replace(b"\n", newline)
    whole, cut = arrived(body, [], wire), arrived(body, cuts, wire)
    assert cut.error is None
    assert [e.tokens for e in cut.events] == [e.tokens for e in whole.events]
    assert (cut.text, cut.reasoning, cut.completion_tokens) == (whole.text, whole.reasoning, whole.completion_tokens)
    times = [e.time for e in cut.events]
    assert times == sorted(times) and times[-1] <= cut.end


@given(cut=st.integers(1, len(LLAMA_CPP) - 1))
def test_an_event_is_stamped_when_its_last_byte_came(cut: int) -> None:
    sample = arrived(LLAMA_CPP, [cut])
    ends = [end for end, _, _ in sse_events(LLAMA_CPP)]
    assert [e.time for e in sample.events] == [1.0 if end <= cut else 2.0 for end in ends[:2]]
    assert sample.end == (1.0 if ends[3] <= cut else 2.0)  # usage is the last event; [DONE] does not count


@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20), st.lists(st.integers(0, 10_000), max_size=60)
)
def test_text_survives_cuts_amid_characters(texts: list[str], cuts: list[int]) -> None:
    events = [{"choices": [{"text": t}]} for t in texts]
    last = {"choices": [], "usage": {"completion_tokens": len(texts)}}
    sample = arrived(sse(*events, last) + b"data: [DONE]\n\n", cuts)
    assert sample.text == "".join(texts)
    assert [e.tokens for e in sample.events] == [1] * len(texts)


def test_vllm_chat_reads_as_it_was_meant() -> None:
    read = read_openai(VLLM_CHAT)
    assert read.error is None
    assert [p.generated for p in read.pieces] == [2, 6]  # the role event and the empty last one do not count
    assert (read.text, read.reasoning, read.finish_reason) == ("Yes, it is", "Hm", "stop")
    assert (read.prompt_tokens, read.cached_tokens, read.completion_tokens) == (9, 8, 7)


def test_llama_cpp_reads_as_it_was_meant() -> None:
    read = read_openai(LLAMA_CPP)
    assert read.error is None
    assert (read.text, read.completion_tokens, read.cached_tokens) == ("Hello", 2, 4)
    assert read.timings["predicted_per_second"] == 500.0


def test_ollama_reads_as_it_was_meant() -> None:
    read = read_ollama(OLLAMA_CHAT)
    assert read.error is None
    assert (read.text, read.finish_reason, read.prompt_tokens, read.completion_tokens) == ("Hello", "length", 26, 2)
    assert read.timings["eval_duration"] == 4e6


def test_ollama_durations_may_be_absent() -> None:
    read = read_ollama(b'{"response":"x","done":false}\n{"response":"","done":true,"eval_count":1}\n')
    assert (read.error, read.completion_tokens, read.prompt_tokens) == (None, 1, None)


@pytest.mark.parametrize("detail", ["usage", "token_ids", "logprobs", "timings"])
def test_tokens_per_event_come_from_the_server_where_it_says(detail: str) -> None:
    counts = [1, 4, 2]
    events = []
    for i, n in enumerate(counts):
        choice: dict[str, object] = {"text": "same"}
        event: dict[str, object] = {"choices": [choice]}
        if detail == "usage":
            event["usage"] = {"completion_tokens": sum(counts[: i + 1])}
        elif detail == "timings":
            event["timings"] = {"predicted_n": sum(counts[: i + 1])}
        else:
            choice[detail] = list(range(n)) if detail == "token_ids" else {"tokens": ["t"] * n}
        events.append(event)
    last = {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 7}}
    assert [e.tokens for e in arrived(sse(*events, last), []).events] == counts


def test_a_token_without_text_is_carried_by_the_next_event() -> None:
    events = [{"choices": [{"text": t, "token_ids": [1]}]} for t in ("a", "", "b")]
    last = {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 3}}
    assert [e.tokens for e in arrived(sse(*events, last), []).events] == [1, 2]


def test_a_count_that_contradicts_usage_is_not_believed() -> None:
    events = [{"choices": [{"text": "ab", "token_ids": [1] * 50}]}, {"choices": [{"text": "cd", "token_ids": [1]}]}]
    last = {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 4}}
    assert [e.tokens for e in arrived(sse(*events, last), []).events] == [2, 2]


def test_comments_names_and_many_data_lines_follow_the_standard() -> None:
    body = b': ping\n\nevent: message\nid: 1\ndata: {"choices":\ndata:[]}\n\nretry: 5\n\n\n\ndata:x\n\n'
    assert [(name, data) for _, name, data in sse_events(body)] == [(b"message", b'{"choices":\n[]}'), (b"", b"x")]


def test_tool_calls_are_output() -> None:
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}}]}
    last = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": {"completion_tokens": 3}}
    assert [e.tokens for e in arrived(sse(call, last), []).events] == [3]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (sse({"error": {"message": "out of memory"}}), "out of memory"),
        (b'event: error\ndata: {"detail": "engine died"}\n\n', "engine died"),
        (sse({"object": "error", "message": "too long"}), "too long"),
        (sse({"choices": [{"text": "a", "finish_reason": "stop"}]}), "no usage"),
        (sse({"choices": [{"text": "a"}]}), "without a finish reason"),
        (b'data: {"choices": [{"te\n\n', "not a JSON object"),
        (b"data: 17\n\n", "not a JSON object"),
    ],
)
def test_a_stream_that_went_wrong_says_how(body: bytes, said: str) -> None:
    assert said in (read_openai(body).error or "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "usage",
                    "delta",
                    "content",
                    "text",
                    "timings",
                    "token_ids",
                    "logprobs",
                    "message",
                    "completion_tokens",
                    "tool_calls",
                    "finish_reason",
                    "done",
                    "eval_count",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("wire", [OPENAI, OLLAMA])
@given(events=st.lists(json_values, min_size=1, max_size=4))
def test_no_server_can_make_reading_raise(wire: Wire, events: list[object]) -> None:
    body = sse(*events) if wire is OPENAI else b"".join(orjson.dumps(e) + b"\n" for e in events)
    sample = arrived(body, [], wire)
    assert sample.error is not None or (sample.events and sample.completion_tokens >= 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b'{"error":"model not loaded"}\n', "model not loaded"), (b'{"response":"a","done":false}\n', "finish reason")],
)
def test_an_ollama_stream_that_went_wrong_says_how(body: bytes, said: str) -> None:
    assert said in (read_ollama(body).error or "")


@pytest.mark.parametrize("wire", [OPENAI, OLLAMA])
@given(temperature=st.floats(0, 2))
def test_temperature_is_sent_as_given(wire: Wire, temperature: float) -> None:
    body = wire.body(Request("hi", temperature=temperature), "m")
    sent = body.get("options", body)["temperature"]
    assert sent == temperature and isinstance(sent, float)


def test_a_default_request_is_greedy_and_of_fixed_length() -> None:
    body = OPENAI.body(Request((1, 2, 3), max_tokens=5), "m")
    assert (body["temperature"], body["ignore_eos"], body["max_tokens"], body["prompt"]) == (0.0, True, 5, [1, 2, 3])
    assert body["stream_options"]["include_usage"] is True
    assert "seed" not in body and "stop" not in body


def test_extra_fields_have_the_last_word() -> None:
    request = Request("hi", chat=True, extra={"temperature": 1.0, "chat_template_kwargs": {"enable_thinking": False}})
    body = OPENAI.body(request, "m")
    assert body["temperature"] == 1.0 and body["messages"] == [{"role": "user", "content": "hi"}]
    assert OPENAI.path(request) == "/v1/chat/completions" and OLLAMA.path(request) == "/api/chat"


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    for bad in (
        lambda: Request(""),
        lambda: Request("x", max_tokens=0),
        lambda: Request((1, 2), chat=True),
        lambda: OLLAMA.body(Request((1, 2)), "m"),
    ):
        with pytest.raises(LabsError):
            bad()


@pytest.mark.parametrize("prompt", ["a question", (5, 6, 7, 8), ({"role": "user", "content": "a question"},)])
def test_a_unique_prefix_changes_the_beginning(prompt: object) -> None:
    request = Request(prompt)  # type: ignore[arg-type]
    changed = with_unique_prefix(request, "Warm-up 3.")
    before, after = OPENAI.body(request, "m"), OPENAI.body(changed, "m")
    key = "messages" if request.is_chat else "prompt"
    first = (lambda b: b[key][0]["content"][:5]) if request.is_chat else (lambda b: b[key][0])
    assert first(before) != first(after)
