"""Explanations: questions about one concept, two concepts, a symptom; answered in prose."""

from __future__ import annotations

from labs_helpers.model.corpus_facts import CONCEPTS, Concept
from labs_helpers.model.corpus_slots import Slots

Turns = list[tuple[str, str]]

_WHAT = (
    "What is {n}?",
    "What does {n} mean?",
    "Define {n}.",
    "Can you tell me what {n} is?",
    "In one sentence: {n}.",
    "I keep reading about {n}. What is it?",
    "Give a short definition of {n}.",
    "Please explain {n} briefly.",
)
_WHY = (
    "Why does {n} matter?",
    "Why should I care about {n}?",
    "What is the point of {n}?",
    "What does {n} change?",
    "Why is {n} important for serving?",
    "Who needs {n}, and why?",
)
_HOW = (
    "How do I use {n} in practice?",
    "Give me a tip about {n}.",
    "What should I do about {n}?",
    "How do I handle {n} in a lab?",
    "What is good practice with {n}?",
)
_ALL = (
    "Explain {n}.",
    "Tell me about {n}.",
    "Explain {n} in detail.",
    "Describe {n} and why it matters.",
    "Teach me about {n}.",
    "I am new to this. What should I know about {n}?",
    "Write a paragraph on {n}.",
)
_LIST = ("Summarise {n} in three points.", "List three facts about {n}.", "Give me bullet points on {n}.")
_COMPARE = (
    "What is the difference between {a} and {b}?",
    "Compare {a} and {b}.",
    "{a} or {b}: how do they differ?",
    "How does {a} relate to {b}?",
    "Contrast {a} with {b}.",
)

_SYMPTOMS: tuple[tuple[str, str], ...] = (
    (
        "The server stops with an out of memory error.",
        "The weights and the KV cache need more memory than is free. Lower the context length or the memory fraction.",
    ),
    (
        "The first request is much slower than the others.",
        "The first request compiles kernels and fills caches. Send warm-up requests before you measure.",
    ),
    ("The port is already in use.", "Another process listens there. Stop it or choose another port."),
    ("The answer ends in the middle of a sentence.", "The limit on output tokens was reached. Raise max_tokens."),
    (
        "The engine says the model was not found.",
        "The name in the request differs from the served name. Read /v1/models and use that name.",
    ),
    (
        "Decoding is faster than the roofline allows.",
        "A figure above the roofline is a mistake. Check the token count, the precision and the clock.",
    ),
    (
        "TTFT rises when more users come.",
        "Requests wait in the queue before their prefill begins. Add a server or limit the concurrency.",
    ),
    (
        "The cached tokens are always zero.",
        "No prefix was reused. Put the shared part first and check that prefix caching is on.",
    ),
    (
        "Speculation makes the server slower.",
        "Too few drafted tokens are accepted for what they cost. Use shorter drafts or a draft trained for the model.",
    ),
    (
        "The client reports large gaps between tokens.",
        "A long prompt of another user was read in one piece. Switch on chunked prefill.",
    ),
    (
        "Two runs give different answers.",
        "The temperature is above zero or the batch shapes differ. Set the temperature to zero and compare in fp32.",
    ),
    (
        "The health check never returns 200.",
        "The model is still loading or the engine has died. Look at the last lines of its log.",
    ),
)
_ASK = ("What is wrong?", "What should I do?", "Why?", "How do I fix it?", "Please help.", "What does it mean?")


def explain(s: Slots) -> Turns:
    """A question about one concept."""
    c: Concept = s.pick(CONCEPTS)
    form = s.rng.randrange(6)
    if form == 0:
        return [("user", s.pick(_WHAT).format(n=c.name)), ("assistant", c.what)]
    if form == 1:
        return [("user", s.pick(_WHY).format(n=c.name)), ("assistant", c.why)]
    if form == 2:
        return [("user", s.pick(_HOW).format(n=c.name)), ("assistant", c.how)]
    if form == 3:
        return [("user", s.pick(_LIST).format(n=c.name)), ("assistant", f"- {c.what}\n- {c.why}\n- {c.how}")]
    return [("user", s.pick(_ALL).format(n=c.name)), ("assistant", f"{c.what} {c.why} {c.how}")]


def compare(s: Slots) -> Turns:
    """A question about two concepts; the pairs are many, so most are seen once or never."""
    a, b = s.rng.sample(CONCEPTS, 2)
    text = s.pick(_COMPARE).format(a=a.name, b=b.name)
    question = text[0].upper() + text[1:] if text.startswith(a.name) and a.name[0].islower() else text
    return [("user", question), ("assistant", f"These are two different things. {a.what} {b.what}")]


def diagnose(s: Slots) -> Turns:
    """A symptom on a named server; the answer names the server again."""
    symptom, cure = s.pick(_SYMPTOMS)
    server, engine = s.server(), s.pick(ENGINES_OF_SYMPTOMS)
    where = s.pick(("This happens on {x} with {e}.", "The server is {x} and runs {e}.", "I see this on {x} ({e})."))
    question = f"{symptom} {where.format(x=server, e=engine)} {s.pick(_ASK)}"
    opening = s.pick(("On {x} with {e}: ", "For {e} on {x}: ", "About {x}, which runs {e}: "))
    return [("user", question), ("assistant", opening.format(x=server, e=engine) + cure)]


ENGINES_OF_SYMPTOMS = ("vLLM", "SGLang", "llama.cpp", "TensorRT-LLM")
