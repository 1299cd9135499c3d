"""Ollama's native format: /api/chat and /api/generate as newline-delimited JSON (ollama/ollama, docs/api.md)."""

from __future__ import annotations

from typing import Any

from labs_helpers.bench.request import Request
from labs_helpers.bench.transcript import Gathering, Transcript, error_text, numbers
from labs_helpers.errors import LabsError

_TIMINGS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


def read_ollama(body: bytes) -> Transcript:
    """Read a stream. Durations are nanoseconds, and any of them may be absent; it does not count tokens per event."""
    found = Gathering()
    last: dict[str, Any] = {}
    end = 0
    for line in body.splitlines(keepends=True):
        end += len(line)
        if not line.strip():
            continue
        found.last_end = end
        event = found.json_object(line)
        if event is None:
            continue
        if event.get("error"):
            found.fail(f"the server reported an error in the stream: {error_text(event)}")
            continue
        message = event.get("message") or event
        text = message.get("content") or message.get("response") or ""
        found.piece(end, text, message.get("thinking") or "", None)
        if event.get("done"):
            last = event
            found.ended = True
            found.finish_reason = event.get("done_reason") or "stop"
    return found.transcript(
        prompt=last.get("prompt_eval_count"),
        cached=None,
        completion=last.get("eval_count"),
        timings=numbers({k: last.get(k) for k in _TIMINGS}),
    )


def ollama_body(request: Request, model: str) -> dict[str, Any]:
    """The request as its endpoint takes it.

    Raises:
        LabsError: the prompt is token ids, which this API does not take.
    """
    if request.is_token_ids:
        raise LabsError("Ollama's API takes no token ids", "give the prompt as text or as messages")
    options: dict[str, Any] = {"num_predict": request.max_tokens, "temperature": request.temperature}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.seed is not None:
        options["seed"] = request.seed
    prompt = {"messages": request.messages()} if request.is_chat else {"prompt": request.prompt}
    return {"model": model, "stream": True, "options": options, **prompt} | dict(request.extra)
