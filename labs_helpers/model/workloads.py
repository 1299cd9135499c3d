"""Workloads whose prompts share beginnings: as token ids where lengths must be exact, as messages where people talk.

All text is of the held-out side of the corpus. Where prompts part, each goes on with a token that none of its siblings
has, so that they share exactly what is said here and not a word more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from math import ceil
from typing import Any

from labs_helpers.errors import LabsError
from labs_helpers.model.corpus import documents
from labs_helpers.model.corpus_slots import ENGINES, Slots
from labs_helpers.model.prompts import long_document, prompts_by_class
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import TURN_END, TURN_START, fast_tokenizer, render_chat

Ids = list[int]
SHORTEST_TAIL = 16
"""Tokens that a prompt needs after what it shares: a first token of its own, some text, the end markers."""


def shared_prefix(
    n: int, prefix_tokens: int, tail_tokens: int = 48, *, share: float = 1.0, seed: int | str = 0
) -> list[Ids]:
    """`n` prompts of exactly `prefix_tokens + tail_tokens` tokens.

    The share of them, rounded up, begins with one common prefix; the others each have a prefix of their own. The two
    kinds are spread evenly, beginning with the common one.

    Raises:
        LabsError: a share outside 0 to 1, or lengths too short to hold a prompt.
    """
    if not 0 <= share <= 1:
        raise LabsError(f"the share is {share}", "give the part of the requests that share the prefix, 0 to 1")
    together = [ceil(round((i + 1) * share, 9)) > ceil(round(i * share, 9)) for i in range(n)]
    firsts = _first_tokens(seed)
    common = _opening(prefix_tokens, next(firsts), seed)
    prompts = []
    for i, joins in enumerate(together):
        opening = common if joins else _opening(prefix_tokens, next(firsts), f"{seed}/{i}")
        prompts.append([*opening, *_tail(tail_tokens, next(firsts), f"{seed}/{i}")])
    return prompts


def branches(
    documents: int,
    sections: int,
    questions: int,
    *,
    sizes: tuple[int, int, int, int] = (64, 256, 64, 32),
    seed: int = 0,
) -> list[Ids]:
    """Prompts that part three times: one instruction, then documents, sections of each, questions on each section.

    `sizes` are the tokens of each of the four parts. The order is that of arrival: shuffled, from the seed.
    """
    firsts = _first_tokens(seed)
    root = _opening(sizes[0], next(firsts), seed)
    prompts = []
    for document in range(documents):
        text = _text(sizes[1], next(firsts), f"{seed}/{document}")
        for section in range(sections):
            part = _text(sizes[2], next(firsts), f"{seed}/{document}/{section}")
            for question in range(questions):
                asked = _tail(sizes[3], next(firsts), f"{seed}/{document}/{section}/{question}")
                prompts.append([*root, *text, *part, *asked])
    random.Random(f"order/{seed}").shuffle(prompts)  # noqa: S311
    return prompts


def few_shot(tasks: int, shots: int, questions: int, *, seed: int = 0) -> list[Ids]:
    """Prompts of several tasks in turns, each with the task's own worked examples in front of a new question."""
    kinds = ("fill_json", "rewrite", "fill_yaml", "url", "serve", "log_line")
    if not 1 <= tasks <= len(kinds):
        raise LabsError(f"there are {len(kinds)} tasks, not {tasks}", "ask for fewer")
    tokenizer = _tokenizer()
    streams = [documents(seed + task, {kinds[task]: 1.0}, held_out=True) for task in range(tasks)]
    examples = [[turn for _ in range(shots) for turn in _first_exchange(next(s))] for s in streams]
    rounds = [
        [*examples[task], _first_exchange(next(streams[task]))[0]] for _ in range(questions) for task in range(tasks)
    ]
    return [tokenizer.encode(render_chat(messages)).ids for messages in rounds]


def conversations(n: int, turns: int, *, system_tokens: int = 256, seed: int = 0) -> tuple[str, list[list[str]]]:
    """A system prompt that everybody shares, and for each of `n` users the questions of a chat, turn by turn."""
    tokenizer = _tokenizer()
    system = "You help students to serve language models.\n\n" + tokenizer.decode(
        tokenizer.encode(long_document(system_tokens, seed)).ids[: system_tokens - 16]
    )
    asked = prompts_by_class("seen-like", n * turns, seed)
    return system, [asked[user * turns : (user + 1) * turns] for user in range(n)]


def popular(prefixes: int, n: int, prefix_tokens: int, tail_tokens: int = 32, *, seed: int = 0) -> list[Ids]:
    """`n` prompts over so many prefixes, the k-th of them asked for in proportion to 1/k (Zipf's law)."""
    firsts = _first_tokens(seed)
    openings = [_opening(prefix_tokens, next(firsts), f"{seed}/{k}") for k in range(prefixes)]
    weights = [1 / (k + 1) for k in range(prefixes)]
    chosen = random.Random(f"popular/{seed}").choices(openings, weights, k=n)  # noqa: S311
    return [[*opening, *_tail(tail_tokens, next(firsts), f"{seed}/q{i}")] for i, opening in enumerate(chosen)]


def distinct(n: int, tokens: int, *, seed: int | str = 0) -> list[Ids]:
    """`n` prompts of exactly so many tokens that share no beginning beyond the marker of the user's turn (of more than
    some 300, one word more)."""
    return _cut([tokens] * n, seed)


def mixed_lengths(n: int, *, seed: int | str = 0) -> list[tuple[Ids, int]]:
    """`n` (prompt, output tokens) as users of a chat send them: most answers are short, one in five is long.

    Prompts have 32 to 64 tokens; short answers 4 to 16, long ones 64 to 128. Lengths of a seed do not depend on `n`.
    """
    draw = random.Random(f"mixed/{seed}")  # noqa: S311
    lengths, outputs = [], []
    for _ in range(n):
        lengths.append(draw.randint(32, 64))
        outputs.append(draw.randint(64, 128) if draw.random() < 0.2 else draw.randint(4, 16))
    return list(zip(_cut(lengths, seed), outputs, strict=True))


def held_out_texts(n: int, tokens: int, seed: int = 0) -> list[Ids]:
    """`n` logs, inventories or manuals of the held-out side of the corpus, cut to exactly so many tokens."""
    return [text_ids(long_document(tokens, seed + i))[:tokens] for i in range(n)]


def service_entries(n: int, seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Requests for a JSON object, and the object each of them describes."""
    slots = Slots(random.Random(f"services/{seed}"), held_out=True)  # noqa: S311
    entries = []
    for name, port in zip(slots.distinct(slots.server, n), slots.distinct(slots.port, n), strict=True):
        entry = {"name": name, "port": int(port), "engine": slots.pick(ENGINES)}
        said = f"The name is {name}, the port is {port}, the engine is {entry['engine']}."
        entries.append((f"{said} Return JSON with the keys name, port, engine.", entry))
    return entries


def chat_ids(messages: list[dict[str, str]]) -> Ids:
    """Token ids of a conversation up to where the model answers, as an engine's chat endpoint makes them."""
    ids: Ids = _tokenizer().encode(render_chat([(m["role"], m["content"]) for m in messages])).ids
    return ids


def text_ids(text: str) -> Ids:
    """Token ids of a text, markers included."""
    ids: Ids = _tokenizer().encode(text).ids
    return ids


def label(ids: Ids, characters: int = 28) -> str:
    """The beginning of what these tokens say, for a picture."""
    text = " ".join(_tokenizer().decode(ids[:24], skip_special_tokens=True).split())
    return text if len(text) <= characters else text[: characters - 1] + "…"


def text(ids: Ids) -> str:
    """What these tokens say, without markers."""
    return str(_tokenizer().decode(ids, skip_special_tokens=True))


def pieces(ids: Ids) -> list[str]:
    """The text of each token by itself, spaces and markers included."""
    tokenizer = _tokenizer()
    return [str(tokenizer.decode([token], skip_special_tokens=False)) for token in ids]


def _tokenizer() -> Any:
    return fast_tokenizer(shipped_dir())


@lru_cache(maxsize=1)
def _words() -> tuple[int, ...]:
    """Ids of tokens that are a space and a lower-case word: each may stand anywhere, and no two are the same."""
    vocabulary: dict[str, int] = _tokenizer().get_vocab()
    return tuple(
        sorted(i for text, i in vocabulary.items() if text[:1] == "Ġ" and text[1:].isalpha() and len(text) > 3)
    )


def _first_tokens(seed: int | str) -> Iterator[int]:
    """Words in an order of the seed's, none twice.

    Raises:
        LabsError: more are asked for than the vocabulary has.
    """
    words = list(_words())
    random.Random(f"first/{seed}").shuffle(words)  # noqa: S311
    yield from words
    raise LabsError(f"a workload parts more than {len(words)} times", "make it smaller, or use several seeds")


def _text(n: int, first: int, seed: int | str) -> Ids:
    """`n` tokens of a document after the given first one."""
    body: Ids = _tokenizer().encode("\n" + long_document(n, _number(seed))).ids
    return [first, *body[: n - 1]]


def _opening(n: int, first: int, seed: int | str) -> Ids:
    """The beginning of a user's turn: `n` tokens, the marker included, with `first` right after it."""
    head: Ids = _tokenizer().encode(f"{TURN_START}user\n").ids
    if n <= len(head):
        raise LabsError(f"a prefix of {n} tokens has no room for the marker", f"use more than {len(head)} tokens")
    return [*head, *_text(n - len(head), first, seed)]


def _tail(n: int, first: int, seed: int | str) -> Ids:
    """The end of a user's turn in `n` tokens: `first`, some text, and the marker after which the model answers."""
    if n < SHORTEST_TAIL:
        raise LabsError(f"a tail of {n} tokens has no room for a text", f"use at least {SHORTEST_TAIL} tokens")
    tail: Ids = _tokenizer().encode(f"{TURN_END}\n{TURN_START}assistant\n").ids
    return [*_text(n - len(tail), first, seed), *tail]


def _cut(lengths: list[int], seed: int | str) -> list[Ids]:
    """A user's turn of each length, cut out of one long text. The first words differ; of more prompts than there are
    words, the first two together."""
    head: Ids = _tokenizer().encode(f"{TURN_START}user\n").ids
    tail: Ids = _tokenizer().encode(f"{TURN_END}\n{TURN_START}assistant\n").ids
    room = [length - len(head) - len(tail) - 2 for length in lengths]
    if min(room, default=0) < 0:
        raise LabsError(f"a prompt of {min(lengths)} tokens has no room for the markers", "use longer ones")
    text = text_ids(long_document(max([4096, *room]), _number(seed)))
    draw, words = random.Random(f"cut/{seed}"), list(_words())  # noqa: S311
    draw.shuffle(words)
    prompts = []
    for number, size in enumerate(room):
        start = draw.randrange(len(text) - size)
        opening = (words[number % len(words)], words[(number + number // len(words)) % len(words)])
        prompts.append([*head, *opening, *text[start : start + size], *tail])
    return prompts


def _first_exchange(document: Any) -> list[tuple[str, str]]:
    """The first question and its answer."""
    turns = [turn for turn in document.turns if turn[0] != "system"]
    return turns[:2]


def _number(seed: int | str) -> int:
    return seed if isinstance(seed, int) else random.Random(seed).randrange(2**31)  # noqa: S311
