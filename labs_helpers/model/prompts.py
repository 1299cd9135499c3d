"""Prompts for the labs: deterministic, of real text of the corpus, from its held-out side.

Chat prompts are texts; prefill prompts are token ids, because only ids have an exact length on every engine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

from labs_helpers.errors import LabsError
from labs_helpers.model.corpus import FULL_MIX, documents
from labs_helpers.model.corpus_long import long_chat
from labs_helpers.model.corpus_slots import Slots
from labs_helpers.model.tokenizer import TURN_END, TURN_START, fast_tokenizer, render_chat

PromptClass = Literal["seen-like", "slot-bearing", "off-domain"]

SHORTEST_PREFILL = 48
"""Room for the markers, the unique start and the question of a prefill prompt, in tokens."""

SEEN_LIKE = {"explain": 3.0, "compare": 1.0}
SLOT_BEARING = {k: w for k, w in FULL_MIX.items() if k not in SEEN_LIKE}

OFF_DOMAIN: Sequence[str] = (
    "How do I bake bread without an oven?",
    "Write a poem about the sea in autumn.",
    "Which birds stay in the north during winter?",
    "Explain how a bicycle keeps its balance.",
    "What should I pack for a week in the mountains?",
    "Tell me about the history of printing.",
    "Why is the sky dark at night?",
    "How can two children share one cake fairly?",
    "Translate the word friendship into French.",
    "Describe the taste of a ripe pear.",
    "Who may enter a museum for free on Sundays?",
    "How does a sailing boat move against the wind?",
    "What is a good name for a grey cat?",
    "Give me a recipe for lentil soup.",
    "How long does light travel from the sun to the earth?",
    "Which tree grows fastest in a small garden?",
    "Explain the rules of chess to a child.",
    "Write a letter that thanks a teacher.",
    "How do bees find their way home?",
    "What makes a bridge stand for a hundred years?",
    "Is it better to run in the morning or in the evening?",
    "Describe a market on a rainy day.",
    "How is paper made from wood?",
    "What did people eat before there were potatoes in Europe?",
)
"""Questions the corpus says nothing about."""


def _tokenizer() -> Any:
    from labs_helpers.model.spec import shipped_dir

    return fast_tokenizer(shipped_dir())


def prompts_by_class(kind: PromptClass, n: int, seed: int = 0) -> list[str]:
    """`n` different held-out user messages of a class.

    Raises:
        LabsError: the class is unknown, or more off-domain prompts are asked for than there are.
    """
    if kind == "off-domain":
        if n > len(OFF_DOMAIN):
            raise LabsError(f"there are {len(OFF_DOMAIN)} off-domain prompts, not {n}", "ask for fewer")
        return random.Random(seed).sample(list(OFF_DOMAIN), n)  # noqa: S311
    mixes = {"seen-like": SEEN_LIKE, "slot-bearing": SLOT_BEARING}
    if kind not in mixes:
        raise LabsError(f"unknown prompt class {kind!r}", "use seen-like, slot-bearing or off-domain")
    chosen: dict[str, None] = {}
    for document in islice(documents(seed, mixes[kind], held_out=True), 200 * n + 2000):
        chosen[document.prompt] = None
        if len(chosen) == n:
            return list(chosen)
    raise LabsError(f"there are only {len(chosen)} different {kind} prompts", "ask for fewer")


def chat_prompts(n: int, seed: int = 0) -> list[str]:
    """`n` different user messages of the full mix, as a course's users would send them."""
    chosen: dict[str, None] = {}
    for document in documents(seed, SLOT_BEARING, held_out=True):
        chosen[document.prompt] = None
        if len(chosen) == n:
            break
    return list(chosen)


def long_document(n_tokens: int, seed: int = 0) -> str:
    """A log, inventory or manual of at least `n_tokens` tokens, without a question: a shared prefix to ask about."""
    tokenizer = _tokenizer()
    slots = Slots(random.Random(f"document/{seed}"), held_out=True)  # noqa: S311
    parts: list[str] = []
    size = 0
    while size < n_tokens:
        part = long_chat(slots, n_tokens - size + 64)[0][1].rsplit("\n\n", 1)[0]
        parts.append(part)
        size += len(tokenizer.encode(part).ids) + 1
    return "\n\n".join(parts)


def prefill_prompt(n_tokens: int, seed: int = 0) -> list[int]:
    """Token ids of a chat prompt of exactly `n_tokens` tokens: a document that begins with a text found in no other
    prompt (so that no prefix cache can help), then a question, then the marker after which the model answers.

    Raises:
        LabsError: `n_tokens` is below 48.
    """
    if n_tokens < SHORTEST_PREFILL:
        raise LabsError(f"a prefill prompt has at least {SHORTEST_PREFILL} tokens, not {n_tokens}", "ask for more")
    tokenizer = _tokenizer()
    slots = Slots(random.Random(f"prefill/{seed}"), held_out=True)  # noqa: S311
    head = tokenizer.encode(f"{TURN_START}user\n{seed} {slots.word()}\n").ids
    question = prompts_by_class("seen-like", 1, seed)[0] if n_tokens >= 96 else "What is prefill?"
    tail = tokenizer.encode(f"\n\n{question}{TURN_END}\n{TURN_START}assistant\n").ids
    room = n_tokens - len(head) - len(tail)
    body = tokenizer.encode(long_document(room + 8, seed)).ids[:room]
    return [*head, *body, *tail]


def chat_token_ids(messages: Sequence[tuple[str, str]]) -> list[int]:
    """Token ids of a conversation, up to where the model answers; the same as the chat template gives."""
    ids: list[int] = _tokenizer().encode(render_chat(messages)).ids
    return ids
