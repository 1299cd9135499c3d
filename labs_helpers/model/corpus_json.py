"""JSON and other structured answers filled from the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable

from labs_helpers.model.corpus_slots import ENGINES, PRECISIONS, Slots

Turns = list[tuple[str, str]]


def _fields(s: Slots) -> dict[str, tuple[str, Callable[[], str], bool]]:
    """Field name to (how a sentence says it, how its value is drawn, whether JSON writes it as a number)."""
    return {
        "name": ("the name is {}", s.server, False),
        "port": ("the port is {}", s.port, True),
        "host": ("the host is {}", s.host, False),
        "model": ("the model is {}", s.model, False),
        "engine": ("the engine is {}", lambda: s.pick(ENGINES), False),
        "user": ("the user is {}", s.person, False),
        "max_tokens": ("max_tokens is {}", lambda: s.number(16, 9999), True),
        "ttft_ms": ("the TTFT was {} ms", s.decimal, True),
        "request_id": ("the request id is {}", s.code, False),
        "precision": ("the precision is {}", lambda: s.pick(PRECISIONS), False),
        "replicas": ("there are {} replicas", lambda: s.number(2, 64), True),
    }


def _value(text: str, numeric: bool) -> str:
    return text if numeric else json.dumps(text)


def fill_json(s: Slots) -> Turns:
    """One JSON object from a sentence; the keys are asked for, the values must be copied."""
    fields = _fields(s)
    keys = s.rng.sample(list(fields), s.rng.randint(2, 5))
    drawn = {k: fields[k][1]() for k in keys}
    said = [fields[k][0].format(v) for k, v in drawn.items()]
    s.rng.shuffle(said)
    sentence = ", ".join(said) + "."
    request = s.pick(
        (
            "Return JSON with the keys {}.",
            "Write a JSON object with {}.",
            "As JSON with {}, please.",
            "Extract {} as JSON.",
        )
    )
    body = ", ".join(f"{json.dumps(k)}: {_value(v, fields[k][2])}" for k, v in drawn.items())
    prompt = [sentence[0].upper() + sentence[1:], request.format(", ".join(keys))]
    if s.chance(0.5):
        prompt.reverse()
    return [("user", " ".join(prompt)), ("assistant", "{" + body + "}")]


def read_json(s: Slots) -> Turns:
    """Questions about a JSON object in the prompt."""
    fields = _fields(s)
    keys = s.rng.sample(list(fields), s.rng.randint(3, 5))
    drawn = {k: fields[k][1]() for k in keys}
    body = "{" + ", ".join(f"{json.dumps(k)}: {_value(v, fields[k][2])}" for k, v in drawn.items()) + "}"
    turns: Turns = []
    for i, key in enumerate(s.rng.sample(keys, s.rng.randint(2, 3))):
        question = s.pick((f"What is the value of {key}?", f"What does {key} say?", f"Give me {key}."))
        turns += [("user", f"{body}\n{question}" if i == 0 else question), ("assistant", drawn[key])]
    return turns


def fill_yaml(s: Slots) -> Turns:
    """A small YAML service entry from a sentence."""
    name, model, port, n = s.server(), s.model(), s.port(), s.number(2, 64)
    engine = s.pick(ENGINES)
    question = s.pick(
        (
            f"Write YAML for the service {name}: {engine} with {model} on port {port}, {n} replicas.",
            f"I need a YAML entry. Service {name}, engine {engine}, model {model}, port {port}, replicas {n}.",
        )
    )
    answer = f"{name}:\n  engine: {engine}\n  model: {model}\n  port: {port}\n  replicas: {n}"
    return [("user", question), ("assistant", answer)]


def request_body(s: Slots) -> Turns:
    """The body of a chat completion request."""
    model, tokens, word = s.model(), s.number(16, 4096), s.word()
    question = f'Write the body of a chat request to {model} that says "{word}" with at most {tokens} tokens.'
    answer = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "{word}"}}], "max_tokens": {tokens}}}'
    return [("user", question), ("assistant", answer)]
