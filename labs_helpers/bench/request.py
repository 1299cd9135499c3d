"""What is asked of a server: one request, independent of the wire format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labs_helpers.errors import LabsError

Message = Mapping[str, Any]
Prompt = str | tuple[int, ...] | tuple[Message, ...]


@dataclass(frozen=True)
class Request:
    """One generation request.

    `prompt` is text, token ids, or chat messages ({"role", "content"}). Text with `chat=True` becomes one user
    message. `ignore_eos` makes the output exactly `max_tokens` long, which speed comparisons need. `temperature` is
    sent as it is given: 0 means greedy. `extra` is merged over the request body last, for options of one engine.
    """

    prompt: Prompt
    max_tokens: int = 64
    temperature: float = 0.0
    ignore_eos: bool = True
    stop: tuple[str, ...] = ()
    seed: int | None = None
    chat: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise LabsError("a request has an empty prompt", "give text, token ids or messages")
        if self.max_tokens < 1:
            raise LabsError(f"max_tokens is {self.max_tokens}", "ask for at least one token")
        if self.chat and self.is_token_ids:
            raise LabsError("a chat request was given token ids", "give text or messages, or set chat=False")

    @property
    def is_token_ids(self) -> bool:
        return not isinstance(self.prompt, str) and isinstance(self.prompt[0], int)

    @property
    def is_chat(self) -> bool:
        return self.chat or (not isinstance(self.prompt, str) and not self.is_token_ids)

    def messages(self) -> list[dict[str, Any]]:
        """The prompt as chat messages."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [dict(m) for m in self.prompt if isinstance(m, Mapping)]


def as_requests(prompts: Iterable[Request | str | Sequence[int] | Sequence[Message]], **fields: Any) -> list[Request]:
    """Make a request of every prompt; a `Request` in the list stays as it is.

    Raises:
        LabsError: there are no prompts, one cannot be sent, or a field is not a request's.
    """
    known = {f.name for f in dataclasses.fields(Request)} - {"prompt"}
    if unknown := sorted(set(fields) - known):
        raise LabsError(f"a request has no {', '.join(unknown)}", f"it has {', '.join(sorted(known))}")
    requests = [
        p if isinstance(p, Request) else Request(p if isinstance(p, str) else tuple(p), **fields)  # type: ignore[arg-type]
        for p in prompts
    ]
    if not requests:
        raise LabsError("there are no prompts to send", "give at least one prompt")
    return requests


def with_unique_prefix(request: Request, tag: str) -> Request:
    """The same request with another beginning, so that no prefix cache can serve one for the other."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return replace(request, prompt=f"{tag} {prompt}")
    if request.is_token_ids:
        return replace(request, prompt=prompt[::-1])
    first, *rest = request.messages()
    return replace(request, prompt=({**first, "content": f"{tag} {first.get('content', '')}"}, *rest))
