"""Long documents: logs, inventories, manuals and whole sessions, with questions after them."""

from __future__ import annotations

from collections.abc import Callable

from labs_helpers.model.corpus_extract import ask, rows, write_rows
from labs_helpers.model.corpus_facts import CONCEPTS
from labs_helpers.model.corpus_slots import STATES, Slots

Turns = list[tuple[str, str]]


def inventory(s: Slots, size: int) -> tuple[str, list[tuple[str, str]]]:
    """About `size` server entries in one notation, and questions with answers."""
    servers = rows(s, size)
    fields = tuple(s.rng.sample(("port", "engine", "model", "host", "state"), s.rng.randint(1, 3)))
    text = "Inventory of all servers\n" + write_rows(servers, s.rng.choice((0, 1, 2, 3, 5)), fields)
    return text, [ask(s, servers, fields) for _ in range(8)]


def request_log(s: Slots, size: int) -> tuple[str, list[tuple[str, str]]]:
    """A server's request log of about `size` lines."""
    server, port = s.server(), s.port()
    ids = s.distinct(s.code, size)
    users = [s.person() for _ in range(size)]
    values = [(s.decimal(), s.number(2, 4096), s.pick(STATES)) for _ in range(size)]
    lines = [
        f"{n + 1} request={i} user={u} ttft_ms={v[0]} tokens={v[1]} server={v[2]}"
        for n, (i, u, v) in enumerate(zip(ids, users, values, strict=True))
    ]
    questions = [("Which server wrote this log?", server), (f"Which port does {server} use?", port)]
    for _ in range(8):
        k = s.rng.randrange(size)
        questions.append(
            s.pick(
                (
                    (f"How many tokens did request {ids[k]} have?", values[k][1]),
                    (f"What was the ttft_ms of request {ids[k]}?", values[k][0]),
                    (f"Which user sent request {ids[k]}?", users[k]),
                )
            )
        )
    return f"Log of {server} on port {port}\n" + "\n".join(lines), questions


def manual(s: Slots, size: int) -> tuple[str, list[tuple[str, str]]]:
    """A manual of about `size` numbered sections, each on one concept and one named contact."""
    concepts = [s.pick(CONCEPTS) for _ in range(size)]
    people, ports = s.distinct(s.person, size), s.distinct(s.port, size)
    sections, questions = [], []
    for n, (c, person, port) in enumerate(zip(concepts, people, ports, strict=True), 1):
        body = s.pick((f"{c.what} {c.how}", f"{c.what} {c.why}", f"{c.why} {c.how}"))
        sections.append(f"{n}. About {c.name}\n{body} Contact: {person}, port {port}.")
        questions += [
            (f"Who is the contact in section {n}?", person),
            (f"What is the port of {person}?", port),
            (s.pick((f"What is {c.name}?", f"What does {c.name} mean?")), c.what),
            (f"Why does {c.name} matter?", c.why),
        ]
    return "Manual of the serving team\n" + "\n".join(sections), s.rng.sample(questions, min(8, len(questions)))


DOCUMENTS: tuple[tuple[Callable[[Slots, int], tuple[str, list[tuple[str, str]]]], float], ...] = (
    (inventory, 30.0),
    (request_log, 38.0),
    (manual, 55.0),
)
"""Maker and its rough tokens per entry, from which the number of entries follows."""


def long_chat(s: Slots, tokens: int) -> Turns:
    """One long document of roughly `tokens` tokens followed by questions about it."""
    make, per_entry = s.pick(DOCUMENTS)
    text, questions = make(s, max(3, int(tokens / per_entry)))
    turns: Turns = []
    for i, (question, answer) in enumerate(questions):
        turns += [("user", f"{text}\n\n{question}" if i == 0 else question), ("assistant", answer)]
    return turns
