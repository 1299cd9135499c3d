"""Generating text with transformers' own forward pass: prefill, decode with a KV cache, text as it becomes complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Request:
    """What to generate. `temperature` 0 is greedy."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Piece:
    """A step of the answer: text that is now certain (may be empty), and on the last one why it ended."""

    text: str
    tokens: int
    finish: Literal["stop", "length"] | None = None
    prefill_s: float = 0.0
    decode_s: float = 0.0


class TextStream:
    """Token ids in, text out, as soon as no later token can change it.

    A token may end inside a multi-byte character; such text is held back until the character is whole. The ids are
    decoded from a little before the new ones, because a decoder may treat the first token of a text differently.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = [s for s in stop if s]
        self._ids: list[int] = []
        self._start = self._sent = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; returns the text that became certain."""
        self._ids.append(token)
        known = self._decode(self._ids[self._start : self._sent])
        text = self._decode(self._ids[self._start :])
        if text.endswith("\ufffd") or len(text) <= len(known):
            return ""
        self._start, self._sent = self._sent, len(self._ids)
        return self._release(text[len(known) :], last=False)

    def flush(self) -> str:
        """The rest, with replacement characters where the tokens ended inside a character."""
        known = self._decode(self._ids[self._start : self._sent])
        rest = self._decode(self._ids[self._start :])[len(known) :]
        self._start = self._sent = len(self._ids)
        return self._release(rest, last=True)

    def _release(self, new: str, last: bool) -> str:
        """Hold back what may be the beginning of a stop string; cut at a whole one."""
        if self.stopped:
            return ""
        text = self._held + new
        cuts = [at for s in self._stop if (at := text.find(s)) >= 0]
        if cuts:
            self.stopped, self._held = True, ""
            return text[: min(cuts)]
        begun = (n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n]))
        keep = 0 if last else max(begun, default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def generate(
    model: Any,
    decode: Callable[[Sequence[int]], str],
    request: Request,
    end_ids: frozenset[int],
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Pieces of the answer, one per forward pass.

    Args:
        model: a causal language model of transformers.
        decode: token ids to text, special tokens left out.
        request: what to generate; the prompt has at least one token.
        end_ids: tokens that end the answer, unless it ignores them.
        cancelled: asked before every step; true ends the answer at once.
    """
    import torch
    from transformers import DynamicCache

    generator = torch.Generator()
    generator.manual_seed(request.seed) if request.seed is not None else generator.seed()
    stream = TextStream(decode, request.stop)
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([request.prompt])
    for count in range(1, request.max_tokens + 1):
        if cancelled():
            return
        started = time.perf_counter()
        with torch.inference_mode():
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
            token = _choose(logits, request.temperature, generator)
        seconds = time.perf_counter() - started
        ended = token in end_ids and not request.ignore_eos
        text = "" if ended else stream.push(token)
        finish: Literal["stop", "length"] | None = "stop" if ended or stream.stopped else None
        if finish is None and count == request.max_tokens:
            finish = "length"
        if finish:
            text += stream.flush()
        yield Piece(text, count, finish, *((seconds, 0.0) if count == 1 else (0.0, seconds)))
        if finish:
            return
        ids = torch.tensor([[token]])


def _choose(logits: Any, temperature: float, generator: Any) -> int:
    import torch

    if temperature == 0:
        return int(logits.argmax())
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    return int(torch.multinomial(weights, 1, generator=generator))
