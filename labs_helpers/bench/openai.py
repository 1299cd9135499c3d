"""The format of OpenAI-compatible servers: /v1/chat/completions and /v1/completions as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labs_helpers.bench.request import Request
from labs_helpers.bench.sse import sse_events
from labs_helpers.bench.transcript import Gathering, Transcript, error_text, numbers


def read_openai(body: bytes) -> Transcript:
    """Read a stream.

    Tokens per event come from the server wherever it tells: running usage (vLLM, SGLang), `timings` per token
    (llama.cpp), token ids (vLLM) or log-probabilities (all).
    """
    found = Gathering()
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    by_ids = 0
    for end, name, data in sse_events(body):
        if data == b"[DONE]":
            found.ended = True
            continue
        found.last_end = end
        event = found.json_object(data)
        if event is None:
            continue
        if name == b"error" or event.get("error") or event.get("object") == "error":
            found.fail(f"the server reported an error in the stream: {error_text(event)}")
            continue
        told_usage, told_timings = event.get("usage"), event.get("timings")
        usage, timings = told_usage or usage, told_timings or timings
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice
            text = delta.get("content") or delta.get("text") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            calls = delta.get("tool_calls")
            by_ids += _token_count(choice)
            if told_usage:
                generated = told_usage.get("completion_tokens")
            elif told_timings:
                generated = told_timings.get("predicted_n")
            else:
                generated = by_ids or None
            found.piece(end, text, reasoning, generated, _argument_chars(calls) if calls else 0)
            found.finish_reason = choice.get("finish_reason") or found.finish_reason
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    return found.transcript(
        prompt=usage.get("prompt_tokens"),
        completion=usage.get("completion_tokens"),
        cached=timings.get("cache_n") if cached is None else cached,  # llama.cpp's name for it
        timings=numbers(timings),
    )


def _token_count(choice: Mapping[str, Any]) -> int:
    """How many token ids or log-probabilities an event shows."""
    if ids := choice.get("token_ids"):
        return len(ids)
    logprobs = choice.get("logprobs")
    return len(logprobs.get("content") or logprobs.get("tokens") or ()) if logprobs else 0


def _argument_chars(calls: list[dict[str, Any]]) -> int:
    """The arguments of a tool call are generated text like any other."""
    functions = (call.get("function") or {} for call in calls)
    return sum(len(f.get("name") or "") + len(f.get("arguments") or "") for f in functions)


def openai_body(request: Request, model: str) -> dict[str, Any]:
    """The request as its endpoint takes it."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        # Running usage tells how many tokens an event carried; servers that do not know it ignore it.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if request.is_chat:
        body["messages"] = request.messages()
    else:
        body["prompt"] = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    if request.ignore_eos:
        body["ignore_eos"] = True
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    return body | dict(request.extra)
