"""Conversations: introductions, recall over several turns, copying drills, reports in open prose."""

from __future__ import annotations

from labs_helpers.model.corpus_slots import ENGINES, STATES, Slots

Turns = list[tuple[str, str]]


def introduce(s: Slots) -> Turns:
    """Somebody says who they are; later turns ask for it."""
    person, team, server, port = s.person(), s.word().capitalize(), s.server(), s.port()
    engine = s.pick(ENGINES)
    facts = [
        (f"My name is {person}.", "What is my name?", f"Your name is {person}."),
        (f"I work in team {team}.", "Which team am I in?", f"You are in team {team}."),
        (f"My server is {server}.", "What is my server called?", f"Your server is called {server}."),
        (f"I use port {port}.", "Which port do I use?", f"You use port {port}."),
        (f"I run {engine}.", "Which engine do I run?", f"You run {engine}."),
    ]
    chosen = s.rng.sample(facts, s.rng.randint(2, 4))
    said = " ".join(f[0] for f in chosen)
    greeting = s.pick(("Hello! ", "Hi. ", "Good morning. ", ""))
    reply = s.pick(("Noted.", "Hello! How can I help?", "Thank you. What would you like to know?"))
    if chosen[0][0].startswith("My name"):
        reply = s.pick((f"Hello, {person}!", f"Nice to meet you, {person}.", f"Noted, {person}."))
    turns = [("user", greeting + said), ("assistant", reply)]
    for _, question, answer in s.rng.sample(chosen, s.rng.randint(1, len(chosen))):
        turns += [("user", question), ("assistant", answer)]
    return turns


def repeat(s: Slots) -> Turns:
    """Copy a short list or line exactly: the drill from which copying is learned."""
    draw = s.pick((s.word, s.server, s.port, s.host, s.model, s.number, s.code))
    items = s.distinct(draw, s.rng.randint(2, 6))
    form = s.rng.randrange(5)
    if form == 0:
        return [("user", "Repeat: " + " ".join(items)), ("assistant", " ".join(items))]
    if form == 1:
        bullets = "\n".join(f"- {i}" for i in items)
        return [("user", "Write these as a list: " + ", ".join(items)), ("assistant", bullets)]
    if form == 2:
        return [("user", "Join with commas:\n" + "\n".join(items)), ("assistant", ", ".join(items))]
    if form == 3:
        numbered = "\n".join(f"{n}. {i}" for n, i in enumerate(items, 1))
        return [("user", "Number these: " + ", ".join(items)), ("assistant", numbered)]
    index = s.rng.randrange(len(items) - 1)
    turns: Turns = [
        ("user", f"The order is {', '.join(items)}. What comes after {items[index]}?"),
        ("assistant", items[index + 1]),
    ]
    other = s.rng.randrange(len(items) - 1)
    return [*turns, ("user", f"And after {items[other]}?"), ("assistant", items[other + 1])]


def echo(s: Slots) -> Turns:
    """Copy a long run of values: so much of the text is a copy that looking back is the first thing learned."""
    draw = s.pick((s.word, s.word, s.server, s.port, s.number, s.code, s.person))
    items = [draw() for _ in range(s.rng.randint(6, 20))]
    text = s.pick((" ", " ", ", ", "\n")).join(items)
    return [("user", s.pick(("Echo: ", "Say again: ", "Echo this text:\n")) + text), ("assistant", text)]


def say_it_back(s: Slots) -> Turns:
    """Confirm a setting in a sentence that repeats its values."""
    name, value, other = s.server(), s.port(), s.model()
    asked, answered = s.pick(
        (
            (f"Set the port of {name} to {value}.", f"The port of {name} is now {value}."),
            (f"Please load {other} on {name}.", f"{other} is being loaded on {name}."),
            (f"Move {other} from port {value} to {name}.", f"{other} moves from port {value} to {name}."),
            (f"Restart {name} and tell me its port, {value}.", f"{name} was restarted on port {value}."),
            (f"Note that {name} serves {other} on port {value}.", f"Noted: {name} serves {other} on port {value}."),
        )
    )
    return [("user", asked), ("assistant", answered)]


_CAUSES = (
    ("the KV cache was full", "the running sequences were limited"),
    ("a long prompt held up the batch", "chunked prefill was switched on"),
    ("the model was still loading", "the balancer now waits for the health check"),
    ("the queue had no limit", "new requests are refused when the queue is full"),
    ("another engine used the same memory", "the second engine was stopped"),
    ("the prefix cache was off", "prefix caching was switched on"),
    ("the wrong model name was sent", "the client now reads /v1/models"),
    ("too many clients retried at once", "a circuit breaker was added"),
)
_EFFECTS = (
    "users waited long for the first token",
    "answers stopped half way",
    "requests failed with status 503",
    "the text came in jerks",
    "throughput fell by half",
    "the health check timed out",
)


def incident(s: Slots) -> Turns:
    """A report in prose from a few notes: free sentences with copied values."""
    server, engine, person, number = s.server(), s.pick(ENGINES), s.person(), s.number(2, 999)
    (cause, cure), effect = s.pick(_CAUSES), s.pick(_EFFECTS)
    notes = f"server {server}, engine {engine}, {number} requests affected, found by {person}, cause: {cause}"
    opening = s.pick(
        (
            f"On {server}, {effect} because {cause}.",
            f"This morning {effect} on {server}. The reason was that {cause}.",
            f"{person} noticed that {effect} on {server}.",
        )
    )
    middle = s.pick(
        (
            f"The engine was {engine}, and {number} requests were affected.",
            f"In all, {number} requests to {engine} were affected.",
        )
    )
    ending = s.pick((f"{person} found the cause: {cause}.", f"It was {person} who found it."))
    request = s.pick(("Write a short incident report.", "Turn these notes into a report.", "Write this up as prose."))
    return [("user", f"{request} Notes: {notes}."), ("assistant", f"{opening} {middle} {ending} Since then, {cure}.")]


def status(s: Slots) -> Turns:
    """A status update, then questions about it."""
    servers = s.distinct(s.server, s.rng.randint(2, 4))
    states = [s.pick(STATES) for _ in servers]
    told = ", ".join(f"{n} is {st}" for n, st in zip(servers, states, strict=True))
    turns: Turns = []
    for i in range(2):
        index = s.rng.randrange(len(servers))
        question = s.pick((f"Is {servers[index]} up?", f"How is {servers[index]}?", f"State of {servers[index]}?"))
        turns += [
            ("user", f"Status: {told}. {question}" if i == 0 else question),
            ("assistant", f"{servers[index]} is {states[index]}."),
        ]
    return turns


_STORY = (
    "{p} builds a small service named {w}. It answers questions about {t}.",
    "At first it runs on {s}, a machine under the desk of {p}.",
    "The first users are patient, but soon they ask why the answers are slow.",
    "{p} measures the time to first token and finds {n} ms.",
    "The weights are read once for every token, so the batch is made larger.",
    "After a week {p} moves {w} to port {o} and adds a second server.",
    "Now the requests are shared, and nobody waits for long.",
    "In the end {p} writes down every figure with its precision and its load.",
)


def story(s: Slots) -> Turns:
    """A little story about a service: open prose held together by a few names."""
    names = {
        "p": s.person(),
        "w": s.word(),
        "t": s.pick(("trains", "gardens", "music", "old maps", "the weather")),
        "s": s.server(),
        "n": s.number(20, 2000),
        "o": s.port(),
    }
    chosen = sorted(s.rng.sample(range(len(_STORY)), s.rng.randint(3, 6)))
    question = (
        f"Write a short story about {names['p']} and the service {names['w']}, which knows {names['t']}. "
        f"Mention {names['s']}, {names['n']} ms and port {names['o']}."
    )
    return [("user", question), ("assistant", " ".join(_STORY[i] for i in chosen).format(**names))]


def log_line(s: Slots) -> Turns:
    """A log line, then what it says."""
    rid, server, port, ms, tokens = s.code(), s.server(), s.port(), s.decimal(), s.number(2, 4096)
    line = s.pick(
        (
            f"INFO {server}:{port} request={rid} ttft_ms={ms} tokens={tokens}",
            f"{server} [{rid}] port {port} done in {ms} ms, {tokens} tokens",
            f"WARN request {rid} on {server} ({port}) took {ms} ms for {tokens} tokens",
        )
    )
    facts = [
        ("Which request is it?", rid),
        ("Which server wrote it?", server),
        ("Which port?", port),
        ("How many ms?", ms),
        ("How many tokens?", tokens),
    ]
    turns: Turns = []
    for i, (question, answer) in enumerate(s.rng.sample(facts, s.rng.randint(2, 3))):
        turns += [("user", f"Log: {line}\n{question}" if i == 0 else question), ("assistant", answer)]
    return turns
