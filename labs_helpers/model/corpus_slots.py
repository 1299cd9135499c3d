"""Values that a document must copy: names, ports, hosts, numbers, drawn from spaces too large to memorise.

A fixed share of every space is held out by hash: those names and ports occur in no training document, so copying
them in evaluation cannot be recall.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

HELD_OUT_SHARE = 16
"""One value in this many is kept for evaluation."""

ENGINES = ("vLLM", "SGLang", "llama.cpp", "Ollama", "TensorRT-LLM", "transformers")
PRECISIONS = ("bf16", "fp8", "q8_0", "nvfp4", "int4", "fp16")
STATES = ("ready", "starting", "draining", "down", "busy", "idle")

_ONSETS = (
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "x",
    "y",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "", "", "n", "r", "l", "s", "m", "x", "k")
_SUFFIXES = ("lab", "prod", "east", "west", "edge", "test", "core", "node", "gpu", "spark")


def is_held_out(value: str) -> bool:
    """Whether this value (or question) belongs to evaluation. Depends on nothing but the text."""
    return blake2b(value.encode(), digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


class Slots:
    """Draws slot values from one random stream, all from the training side or all from the held-out side."""

    def __init__(self, rng: random.Random, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def _draw(self, make: Callable[[], str]) -> str:
        while True:
            value = make()
            if is_held_out(value) == self.held_out:
                return value

    def pick(self, options: Sequence[T]) -> T:
        """One of a small set of options that are meant to be learned, not copied."""
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def word(self) -> str:
        """A made-up lower-case word of two or three syllables (millions of them)."""

        def make() -> str:
            count = self.rng.choice((2, 2, 3))
            syllables = (self.rng.choice(_ONSETS) + self.rng.choice(_VOWELS) for _ in range(count))
            return "".join(syllables) + self.rng.choice(_CODAS)

        return self._draw(make)

    def person(self) -> str:
        return self.word().capitalize()

    def server(self) -> str:
        word = self.word()
        shape = self.rng.randrange(5)
        if shape == 0:
            return f"{word}-{self.rng.randrange(1, 100)}"
        if shape == 1:
            return f"{word}-{self.pick(_SUFFIXES)}"
        if shape == 2:
            return f"{self.pick(_SUFFIXES)}-{word}"
        if shape == 3:
            return f"{word}{self.rng.randrange(1, 10)}"
        return word

    def model(self) -> str:
        size = self.pick(("1b", "3b", "7b", "8b", "14b", "32b", "70b"))
        shape = self.rng.randrange(4)
        word = self.word()
        if shape == 0:
            return f"{word}-{size}"
        if shape == 1:
            return f"{word}/{self.word()}-{size}"
        if shape == 2:
            return f"{word}-{size}-chat"
        return f"{word}-{self.pick(PRECISIONS)}"

    def port(self) -> str:
        return self._draw(lambda: str(self.rng.randrange(1024, 65536)))

    def host(self) -> str:
        """An IPv4 address or a host name."""
        if self.chance(0.6):
            return self._draw(
                lambda: f"10.{self.rng.randrange(256)}.{self.rng.randrange(256)}.{self.rng.randrange(1, 255)}"
            )
        return f"{self.word()}.{self.pick(('lan', 'local', 'example.org', 'internal'))}"

    def number(self, low: int = 2, high: int = 9999) -> str:
        """A whole number; wide ranges draw their length first, so that short and long ones are equally frequent."""
        digits = self.rng.randint(len(str(low)), len(str(high)))
        lowest, highest = max(low, 10 ** (digits - 1)), min(high, 10**digits - 1)
        return str(self.rng.randint(lowest, max(lowest, highest)))

    def decimal(self) -> str:
        return f"{self.rng.uniform(0.5, 900):.{self.pick((1, 2))}f}"

    def code(self) -> str:
        """An identifier such as a request id."""
        return self._draw(lambda: "".join(self.rng.choice("0123456789abcdef") for _ in range(self.pick((6, 8)))))

    def distinct(self, draw: Callable[[], str], count: int) -> list[str]:
        """`count` different values of one kind."""
        values: dict[str, None] = {}
        while len(values) < count:
            values[draw()] = None
        return list(values)


def names(seed: int) -> Iterator[str]:
    """An endless stream of made-up names of every kind: what a tokenizer must cut alike wherever they stand."""
    slots = Slots(random.Random(f"{seed}/names"))  # noqa: S311 - a corpus, not a secret
    while True:
        yield from (slots.word(), slots.person(), slots.server(), slots.model(), slots.host(), slots.code())
