"""What one stream said, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


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
    """The events of a stream that carried output, and what the others told about it."""

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


class Gathering:
    """What has been read from the events so far. Lives only inside one `read_*` call."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.last_end = 0
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.ended = False

    def piece(self, end: int, text: str, reasoning: str, generated: int | None, other_chars: int = 0) -> None:
        """Add an event's output; an event without any does not count."""
        if chars := len(text) + len(reasoning) + other_chars:
            self.pieces.append(Piece(end, chars, generated))
            self.text.append(text)
            if reasoning:
                self.reasoning.append(reasoning)

    def fail(self, message: str) -> None:
        """Keep the first error: what follows it is usually its consequence."""
        self.error = self.error or " ".join(message.split())

    def json_object(self, data: bytes) -> dict[str, Any] | None:
        """The event as an object, or None and an error."""
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            event = None
        if isinstance(event, dict):
            return event
        shown = data[:80].decode(errors="replace")
        self.fail(f"an event after {len(self.pieces)} content events is not a JSON object: {shown!r}")
        return None

    def transcript(self, *, prompt: Any, cached: Any, completion: Any, timings: Mapping[str, float]) -> Transcript:
        """The whole of it. A count that is no whole number is as good as none."""
        prompt, cached, completion = (n if type(n) is int and n >= 0 else None for n in (prompt, cached, completion))
        if not self.ended and self.finish_reason is None:
            self.fail(f"the stream ended after {len(self.pieces)} content events without a finish reason")
        if completion is None:
            self.fail("the server sent no usage, so its tokens cannot be counted (stream_options.include_usage)")
        return Transcript(
            pieces=tuple(self.pieces),
            last_end=self.last_end,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            finish_reason=self.finish_reason,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            timings=timings,
            error=self.error,
        )


def error_text(answer: Any) -> str:
    """The sentence inside an error answer: OpenAI's {error: {message}}, FastAPI's {detail}, Ollama's {error}."""
    if isinstance(answer, dict):
        for key in ("error", "message", "detail"):
            if answer.get(key):
                return error_text(answer[key])
    return answer if isinstance(answer, str) else orjson.dumps(answer, default=str).decode()


def numbers(mapping: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are numbers."""
    return {k: float(v) for k, v in mapping.items() if isinstance(v, int | float) and not isinstance(v, bool)}
