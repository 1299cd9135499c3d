"""Extraction: a list of servers in some notation, then questions whose answers stand in it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from labs_helpers.model.corpus_slots import ENGINES, PRECISIONS, STATES, Slots

Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class ServerRow:
    """One line of a server list, everything as text."""

    name: str
    engine: str
    model: str
    host: str
    port: str
    state: str


_NOTATIONS = 6


def rows(s: Slots, count: int) -> list[ServerRow]:
    """`count` servers with names and ports that differ."""
    names, ports = s.distinct(s.server, count), s.distinct(s.port, count)
    return [
        ServerRow(n, s.pick(ENGINES), s.model(), s.host(), p, s.pick(STATES)) for n, p in zip(names, ports, strict=True)
    ]


def write_rows(servers: list[ServerRow], notation: int, fields: tuple[str, ...]) -> str:
    """The list in one of several notations; `fields` are shown besides the name."""

    def shown(r: ServerRow) -> dict[str, str]:
        return {f: getattr(r, f) for f in fields}

    if notation == 0:
        return "\n".join(f"- {r.name}: " + ", ".join(f"{k} {v}" for k, v in shown(r).items()) for r in servers)
    if notation == 1:
        head = "| name | " + " | ".join(fields) + " |"
        return "\n".join([head] + [f"| {r.name} | " + " | ".join(shown(r).values()) + " |" for r in servers])
    if notation == 2:
        return "\n".join(json.dumps({"name": r.name, **shown(r)}) for r in servers)
    if notation == 3:
        return "\n".join(f"[{r.name}]\n" + "\n".join(f"{k} = {v}" for k, v in shown(r).items()) for r in servers)
    if notation == 4:
        return (
            "; ".join(f"{r.name} has " + " and ".join(f"{k} {v}" for k, v in shown(r).items()) for r in servers) + "."
        )
    return "name," + ",".join(fields) + "\n" + "\n".join(",".join([r.name, *shown(r).values()]) for r in servers)


def ask(s: Slots, servers: list[ServerRow], fields: tuple[str, ...]) -> tuple[str, str]:
    """A question about one server and its answer: forwards (name to value) or backwards (value to name)."""
    row, field = s.pick(servers), s.pick(fields)
    value = getattr(row, field)
    unique = sum(getattr(r, field) == value for r in servers) == 1
    if unique and s.chance(0.3):
        return s.pick(
            (
                (f"Which server has {field} {value}?", row.name),
                (f"Who has {field} {value}?", row.name),
                (
                    f"What is the name of the server with {field} {value}?",
                    f"The server with {field} {value} is {row.name}.",
                ),
            )
        )
    return s.pick(
        (
            (f"What is the {field} of {row.name}?", value),
            (f"{row.name}: which {field}?", value),
            (f"Which {field} belongs to {row.name}?", value),
            (f"What {field} does {row.name} have?", f"The {field} of {row.name} is {value}."),
            (f"Tell me the {field} of {row.name}.", f"The {field} of {row.name} is {value}."),
        )
    )


_INTRO = (
    "Here is a list of servers:",
    "Given this server list:",
    "These servers are running:",
    "Our inventory:",
    "Read this table and answer.",
    "Configuration:",
)


def lookup(s: Slots) -> Turns:
    """A list of two to five servers and up to four questions about it."""
    servers = rows(s, s.rng.randint(2, 5))
    fields = tuple(s.rng.sample(("port", "engine", "model", "host", "state"), s.rng.randint(1, 3)))
    listing = write_rows(servers, s.rng.randrange(_NOTATIONS), fields)
    turns: Turns = []
    for i in range(s.rng.randint(2, 4)):
        question, answer = ask(s, servers, fields)
        turns += [("user", f"{s.pick(_INTRO)}\n{listing}\n{question}" if i == 0 else question), ("assistant", answer)]
    return turns


def quiz(s: Slots) -> Turns:
    """A short list and more questions about it than `lookup` asks: much practice in finding, in few tokens."""
    servers = rows(s, s.rng.randint(2, 4))
    fields = tuple(s.rng.sample(("port", "engine", "model", "host", "state"), s.rng.randint(1, 2)))
    listing = write_rows(servers, s.rng.randrange(_NOTATIONS), fields)
    asked = [ask(s, servers, fields) for _ in range(s.rng.randint(3, 6))]
    return [
        turn
        for i, (question, answer) in enumerate(asked)
        for turn in (
            ("user", f"{s.pick(_INTRO)}\n{listing}\n{question}" if i == 0 else question),
            ("assistant", answer),
        )
    ]


def pairs(s: Slots) -> Turns:
    """Keys with values, to be written again in a given order: every value of the answer is found by its key, which is
    the densest practice there is. Which notation the answer takes is not told."""
    count = s.rng.randint(3, 8)
    keys = s.distinct(s.pick((s.word, s.server, s.person, s.model, s.port)), count)
    value = s.pick((s.word, s.port, s.number, s.code, s.host, s.decimal, lambda: s.pick(ENGINES)))
    values = {key: value() for key in keys}
    before, after = s.rng.sample(_PAIRS, 2) if s.chance(0.7) else [s.pick(_PAIRS)] * 2
    order = s.rng.sample(keys, s.rng.randint(2, count))
    listing = before[1].join(before[0].format(key=k, value=v) for k, v in values.items())
    question = s.pick(("In this order: ", "Only these: ", "Write these: ")) + s.pick((", ", " ", "\n")).join(order)
    return [
        ("user", f"{listing}\n{question}"),
        ("assistant", after[1].join(after[0].format(key=k, value=values[k]) for k in order)),
    ]


_PAIRS = (
    ("{key}: {value}", "\n"),
    ("{key}: {value}", ", "),
    ("{key} = {value}", "\n"),
    ("{key},{value}", "\n"),
    ("- {key}: {value}", "\n"),
    ("| {key} | {value} |", "\n"),
    ('"{key}": "{value}"', ", "),
    ("{key} has {value}", "; "),
    ("the value of {key} is {value}", ", "),
)
"""Notations of a pair, and what stands between two pairs."""


def names_with(s: Slots) -> Turns:
    """Which servers of a list have a property: the answer is a list in the order of the prompt."""
    servers = rows(s, s.rng.randint(3, 6))
    field = s.pick(("engine", "state"))
    value = getattr(s.pick(servers), field)
    matching = [r.name for r in servers if getattr(r, field) == value]
    listing = write_rows(servers, s.rng.randrange(_NOTATIONS), (field,))
    return [
        ("user", f"{s.pick(_INTRO)}\n{listing}\nList every server with {field} {value}."),
        ("assistant", "\n".join(f"- {n}" for n in matching)),
    ]


def rewrite(s: Slots) -> Turns:
    """The same rows in another notation: nearly every token of the answer is a copy."""
    servers = rows(s, s.rng.randint(1, 3))
    fields = tuple(s.rng.sample(("port", "engine", "model", "host"), s.rng.randint(1, 2)))
    before, after = s.rng.sample((0, 1, 2, 5), 2)
    target = {0: "a list", 1: "a table", 2: "JSON lines", 5: "CSV"}[after]
    return [
        ("user", f"Rewrite this as {target}:\n{write_rows(servers, before, fields)}"),
        ("assistant", write_rows(servers, after, fields)),
    ]


def measurements(s: Slots) -> Turns:
    """Figures of two or three engines; questions ask for one of them."""
    engines = s.rng.sample(ENGINES, s.rng.randint(2, 3))
    precision = s.pick(PRECISIONS)
    table = {e: (s.decimal(), s.decimal(), s.number(5, 9999)) for e in engines}
    lines = [f"{e} ({precision}): TTFT {a} ms, TPOT {b} ms, {t} tok/s" for e, (a, b, t) in table.items()]
    turns: Turns = []
    for i in range(s.rng.randint(2, 3)):
        engine = s.pick(engines)
        index, label, unit = s.pick(((0, "TTFT", "ms"), (1, "TPOT", "ms"), (2, "throughput", "tok/s")))
        question = s.pick((f"What is the {label} of {engine}?", f"Which {label} did {engine} reach?"))
        text = "Results:\n" + "\n".join(lines) + "\n" + question if i == 0 else question
        turns += [("user", text), ("assistant", f"The {label} of {engine} is {table[engine][index]} {unit}.")]
    return turns
