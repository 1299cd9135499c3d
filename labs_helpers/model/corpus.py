"""The corpus: documents by kind, deterministic from a seed, with training and held-out sides that never meet.

Held out are (a) one slot value in sixteen, so held-out names and ports occur in no training document, and (b) one
first question in sixteen of the kinds that have no slots. Prompts are deduplicated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from labs_helpers.model import corpus_chat as chat
from labs_helpers.model import corpus_commands as commands
from labs_helpers.model import corpus_explain as explain
from labs_helpers.model import corpus_extract as extract
from labs_helpers.model import corpus_json as structured
from labs_helpers.model.corpus_long import long_chat
from labs_helpers.model.corpus_slots import Slots, is_held_out

Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Document:
    """A conversation of the corpus. `turns` are (role, content) pairs in order, the last by the assistant."""

    kind: str
    turns: tuple[tuple[str, str], ...]

    @property
    def prompt(self) -> str:
        """The first question, by which documents are deduplicated."""
        return next(text for role, text in self.turns if role == "user")

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": role, "content": text} for role, text in self.turns]


SYSTEM = (
    "You are a helpful assistant for inference engines.",
    "Answer briefly.",
    "You help students to serve language models.",
    "Answer from the given text.",
)

GENERATORS: Mapping[str, Callable[[Slots], Turns]] = {
    "explain": explain.explain,
    "compare": explain.compare,
    "diagnose": explain.diagnose,
    "lookup": extract.lookup,
    "quiz": extract.quiz,
    "pairs": extract.pairs,
    "names_with": extract.names_with,
    "rewrite": extract.rewrite,
    "measurements": extract.measurements,
    "fill_json": structured.fill_json,
    "read_json": structured.read_json,
    "fill_yaml": structured.fill_yaml,
    "request_body": structured.request_body,
    "serve": commands.serve,
    "curl": commands.curl,
    "url": commands.url,
    "python_client": commands.python_client,
    "python_function": commands.python_function,
    "docker": commands.docker,
    "introduce": chat.introduce,
    "echo": chat.echo,
    "repeat": chat.repeat,
    "say_it_back": chat.say_it_back,
    "incident": chat.incident,
    "status": chat.status,
    "story": chat.story,
    "log_line": chat.log_line,
}

RECALLED_KINDS = frozenset({"explain", "compare"})
"""Kinds without slots: their answers are learned, and whole questions are held out."""

ECHO_MIX: Mapping[str, float] = {"echo": 1}
"""What the first stage is fed: copies and nothing else."""

COPY_MIX: Mapping[str, float] = {
    "echo": 2,
    "repeat": 6,
    "lookup": 4,
    "quiz": 4,
    "rewrite": 3,
    "read_json": 2,
    "fill_json": 2,
    "say_it_back": 2,
    "log_line": 2,
    "introduce": 1,
    "status": 1,
    "explain": 2,
    "url": 1,
    "serve": 1,
}
"""What the second stage is fed: mostly answers that stand in the prompt."""

FULL_MIX: Mapping[str, float] = {
    "echo": 0.4,
    "explain": 4,
    "compare": 1.2,
    "diagnose": 2,
    "lookup": 4,
    "names_with": 1,
    "rewrite": 1.5,
    "measurements": 1.5,
    "fill_json": 3,
    "read_json": 1.5,
    "fill_yaml": 1,
    "request_body": 1,
    "serve": 2,
    "curl": 1,
    "url": 1,
    "python_client": 0.8,
    "python_function": 1.2,
    "docker": 1,
    "introduce": 1.5,
    "repeat": 2,
    "say_it_back": 1.2,
    "incident": 1.5,
    "status": 1,
    "story": 1,
    "log_line": 1.5,
}
"""Everything the labs ask for."""

TRAINING_MIX: Mapping[str, float] = {
    **FULL_MIX,
    "quiz": 10,
    "repeat": 5,
    "rewrite": 4,
    "names_with": 2,
    "measurements": 2.5,
    "fill_json": 4,
}
"""What the later stages are fed: everything, with more of what is hardest, to find the right one of several."""

PAIRS_MIX: Mapping[str, float] = {**TRAINING_MIX, "pairs": 45, "repeat": 12}
"""Drills of finding by a key, with everything else beside them."""

QUIZ_MIX: Mapping[str, float] = {**TRAINING_MIX, "quiz": 40, "pairs": 15, "lookup": 8, "repeat": 8}
"""Drills of questions about a list."""


def document(slots: Slots, kind: str) -> Document:
    """One document of a kind, on the side (training or held out) that `slots` draws from."""
    while True:
        turns = GENERATORS[kind](slots)
        if kind in RECALLED_KINDS and is_held_out(turns[0][1]) != slots.held_out:
            continue
        if slots.chance(0.15):
            turns = [("system", slots.pick(SYSTEM)), *turns]
        return Document(kind, tuple(turns))


def documents(seed: int, mix: Mapping[str, float], held_out: bool = False) -> Iterator[Document]:
    """An endless stream of documents in the given mix.

    A document with slots comes once only. Explanations are few by nature and return: a language is learned by
    hearing a sentence more than once.
    """
    slots = Slots(random.Random(f"{seed}/{held_out}"), held_out)  # noqa: S311 - a corpus, not a secret
    kinds, weights = list(mix), list(mix.values())
    seen: set[str] = set()
    while True:
        made = document(slots, slots.rng.choices(kinds, weights)[0])
        if made.kind in RECALLED_KINDS or made.prompt not in seen:
            seen.add(made.prompt)
            yield made


def long_documents(seed: int, mix: Mapping[str, float], tokens: int, held_out: bool = False) -> Iterator[Document]:
    """Long conversations of roughly `tokens` tokens: half begin with a long document, half are sessions of many
    short conversations, so that an answer stays sensible far into a context."""
    slots = Slots(random.Random(f"{seed}/{held_out}/long"), held_out)  # noqa: S311
    short = documents(seed + 1, mix, held_out)
    while True:
        turns: Turns = []
        if slots.chance(0.5):
            turns += long_chat(slots, int(tokens * slots.rng.uniform(0.3, 0.8)))
        while sum(len(text) for _, text in turns) < tokens * 3:
            turns += [t for t in next(short).turns if t[0] != "system"]
        yield Document("long", tuple(turns))
