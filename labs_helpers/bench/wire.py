"""The two stream formats of the field, read after the stream has ended: OpenAI's SSE and Ollama's NDJSON.

While a stream runs the client only keeps bytes and arrival times. A format therefore needs no incremental parser: it
gets the whole body and says at which byte each event ended; the client looks up when that byte arrived. However the
network cut the body into chunks, the events are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from labs_helpers.bench.request import Request
from labs_helpers.errors import LabsError


@dataclass(frozen=True, slots=True)
class Piece:
    """One event that carried output."""

    end: int
    """Bytes of the body up to and including this event."""
    chars: int
    generated: int | None
    """Tokens the server says it has generated up to here, None when it does not say."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What one stream said."""

    pieces: tuple[Piece, ...] = ()
    last_end: int = 0
    """Bytes up to and including the last event of any kind; the end marker `[DONE]` does not count."""
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    """The server's own timings of this request, under the server's own names."""
    error: str | None = None


@dataclass(frozen=True)
class Wire:
    """One format: where a request goes, what it looks like, how the answer reads."""

    name: str
    path: Callable[[Request], str]
    body: Callable[[Request, str], dict[str, Any]]
    read: Callable[[bytes], Transcript]
    models_path: str
    model_names: Callable[[Any], list[str]]


class _Reading:
    """What has been gathered from the events so far. Lives only inside one `read_*` call."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.last_end = 0
        self.finish_reason: str | None = None
        self.usage: dict[str, int] = {}
        self.timings: dict[str, float] = {}
        self.error: str | None = None
        self.ended = False

    def piece(self, end: int, text: str, reasoning: str, generated: int | None, extra_chars: int = 0) -> None:
        if chars := len(text) + len(reasoning) + extra_chars:
            self.pieces.append(Piece(end, chars, generated))
            self.text.append(text)
            self.reasoning.append(reasoning)

    def fail(self, message: str) -> None:
        self.error = self.error or message

    def transcript(self) -> Transcript:
        if not self.ended and self.finish_reason is None:
            self.fail(f"the stream ended after {len(self.pieces)} content events without a finish reason")
        if self.usage.get("completion_tokens") is None:
            self.fail("the server sent no usage, so its tokens cannot be counted (stream_options.include_usage)")
        return Transcript(
            pieces=tuple(self.pieces), last_end=self.last_end, text="".join(self.text),
            reasoning="".join(self.reasoning), finish_reason=self.finish_reason,
            prompt_tokens=self.usage.get("prompt_tokens"), cached_tokens=self.usage.get("cached_tokens"),
            completion_tokens=self.usage.get("completion_tokens"), timings=self.timings, error=self.error,
        )


# --- OpenAI-compatible servers: server-sent events ----------------------------------------------------------------

# A line ends with CR LF, LF or CR, and a blank line ends an event (HTML Living Standard, 9.2.6). The groups are atomic
# so that one CR LF is never taken for two line ends.
_END_OF_EVENT = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


def sse_events(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(end offset, event name, data) of every server-sent event that carries data.

    A last event without its blank line counts when it is there in full; the caller sees whether its data can be read.
    """
    for end, block in _blocks(body):
        if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
            yield end, b"", block[6:]
            continue
        name, data = b"", []
        for line in _END_OF_LINE.split(block):
            key, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if key == b"data":
                data.append(value)
            elif key == b"event":
                name = value
        if data:
            yield end, name, b"\n".join(data)


def _blocks(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(end offset, bytes) of everything between blank lines."""
    end = 0
    if b"\r" not in body:  # the common case, at a tenth of the cost
        for block in body.split(b"\n\n"):
            end += len(block) + 2
            yield min(end, len(body)), block
        return
    for blank in _END_OF_EVENT.finditer(body):
        start, end = end, blank.end()
        yield end, body[start:blank.start()]
    yield len(body), body[end:]


def read_openai(body: bytes) -> Transcript:
    """Read a stream of /v1/chat/completions or /v1/completions.

    Tokens per event come from the server wherever it tells: running usage (vLLM, SGLang), `timings` per token
    (llama.cpp), token ids (vLLM) or log-probabilities (all).
    """
    r = _Reading()
    by_ids = 0
    for end, name, data in sse_events(body):
        if data == b"[DONE]":
            r.ended = True
            continue
        r.last_end = end
        event = _json_object(data, r)
        if event is None:
            continue
        if name == b"error" or event.get("error") or event.get("object") == "error":
            r.fail(f"the server reported an error in the stream: {error_text(event)}")
            continue
        usage = event.get("usage") or {}
        if usage:
            r.usage |= _openai_usage(usage)
        timings = event.get("timings") or {}
        if timings:
            r.timings = _numbers(timings)
            if timings.get("cache_n") is not None:
                r.usage.setdefault("cached_tokens", timings["cache_n"])  # llama.cpp's name for it
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content") or choice.get("text") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            calls = sum(len((c.get("function") or {}).get("arguments") or "") for c in delta.get("tool_calls") or ())
            by_ids += len(choice.get("token_ids") or ()) or _logprob_count(choice.get("logprobs"))
            generated = usage.get("completion_tokens") or timings.get("predicted_n") or by_ids or None
            r.piece(end, text, reasoning, generated, calls)
            r.finish_reason = choice.get("finish_reason") or r.finish_reason
    return r.transcript()


def _openai_usage(usage: Mapping[str, Any]) -> dict[str, int]:
    details = usage.get("prompt_tokens_details") or {}
    counts = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens"),
    }
    return {name: count for name, count in counts.items() if count is not None}


def _logprob_count(logprobs: Mapping[str, Any] | None) -> int:
    return len(logprobs.get("content") or logprobs.get("tokens") or ()) if logprobs else 0


def _openai_body(request: Request, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model, "stream": True, "max_tokens": request.max_tokens, "temperature": request.temperature,
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


OPENAI = Wire(
    name="openai-sse",
    path=lambda request: "/v1/chat/completions" if request.is_chat else "/v1/completions",
    body=_openai_body,
    read=read_openai,
    models_path="/v1/models",
    model_names=lambda answer: [m["id"] for m in answer.get("data", ())],
)


# --- Ollama's native API: newline-delimited JSON -------------------------------------------------------------------

_OLLAMA_TIMINGS = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
                   "eval_duration")


def read_ollama(body: bytes) -> Transcript:
    """Read a stream of /api/chat or /api/generate. Durations are nanoseconds, and any of them may be absent."""
    r = _Reading()
    start = 0
    while start < len(body):
        newline = body.find(b"\n", start)
        end = len(body) if newline < 0 else newline + 1
        line, start = body[start:end].strip(), end
        if not line:
            continue
        r.last_end = end
        event = _json_object(line, r)
        if event is None:
            continue
        if event.get("error"):
            r.fail(f"the server reported an error in the stream: {error_text(event)}")
            continue
        message = event.get("message") or {}
        text = message.get("content") or event.get("response") or ""
        r.piece(end, text, message.get("thinking") or event.get("thinking") or "", None)
        if event.get("done"):
            r.ended = True
            r.finish_reason = event.get("done_reason") or "stop"
            counts = {"prompt_tokens": event.get("prompt_eval_count"), "completion_tokens": event.get("eval_count")}
            r.usage = {name: count for name, count in counts.items() if count is not None}
            r.timings = _numbers({k: event[k] for k in _OLLAMA_TIMINGS if k in event})
    return r.transcript()


def _ollama_body(request: Request, model: str) -> dict[str, Any]:
    if request.is_token_ids:
        raise LabsError("Ollama's API takes no token ids", "give the prompt as text or as messages")
    options: dict[str, Any] = {"num_predict": request.max_tokens, "temperature": request.temperature}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.seed is not None:
        options["seed"] = request.seed
    prompt = {"messages": request.messages()} if request.is_chat else {"prompt": request.prompt}
    return {"model": model, "stream": True, "options": options, **prompt} | dict(request.extra)


OLLAMA = Wire(
    name="ollama-ndjson",
    path=lambda request: "/api/chat" if request.is_chat else "/api/generate",
    body=_ollama_body,
    read=read_ollama,
    models_path="/api/tags",
    model_names=lambda answer: [m["name"] for m in answer.get("models", ())],
)

WIRES = {wire.name: wire for wire in (OPENAI, OLLAMA)}


def wire_named(name: str) -> Wire:
    """The format of this name.

    Raises:
        LabsError: there is no such format.
    """
    if name not in WIRES:
        raise LabsError(f"unknown stream format {name!r}", f"choose one of {', '.join(WIRES)}")
    return WIRES[name]


# --- both ----------------------------------------------------------------------------------------------------------


def error_text(answer: Any) -> str:
    """The sentence inside an error answer: OpenAI's {error: {message}}, FastAPI's {detail}, Ollama's {error}."""
    if isinstance(answer, dict):
        for key in ("error", "message", "detail"):
            if answer.get(key):
                return error_text(answer[key])
    return answer if isinstance(answer, str) else orjson.dumps(answer, default=str).decode()


def _json_object(data: bytes, reading: _Reading) -> dict[str, Any] | None:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        shown = data[:80].decode(errors="replace")
        reading.fail(f"an event after {len(reading.pieces)} content events is not a JSON object: {shown!r}")
        return None
    return event


def _numbers(mapping: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in mapping.items() if isinstance(v, int | float) and not isinstance(v, bool)}
