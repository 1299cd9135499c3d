"""Hidden cases of lab 3.3.2: traces for the tree, judged by a cache that keeps every prefix by itself."""

from __future__ import annotations

import random
from typing import Any

from labs_helpers.exercises import Case, equals
from labs_helpers.syllabus.lab_3_3_2 import order_case

Trace = tuple[tuple[str, tuple[Any, ...]], ...]
Prefix = tuple[int, ...]


class EveryPrefix:
    """The same cache without a tree: one entry per prefix, and a list of where runs have been parted."""

    def __init__(self) -> None:
        self.used: dict[Prefix, int] = {}
        self.locks: dict[Prefix, int] = {}
        self.parted: set[Prefix] = {()}
        self.clock = 0

    def match(self, tokens: list[int]) -> int:
        found = self._found(tokens)
        self._use(found)
        return len(found)

    def insert(self, tokens: list[int]) -> int:
        found = self._found(tokens)
        self.parted.add(tuple(tokens))
        self._use(tuple(tokens))
        return len(tokens) - len(found)

    def lock(self, tokens: list[int], change: int = 1) -> int:
        found = self._found(tokens)
        for prefix in _prefixes(found):
            self.locks[prefix] = self.locks.get(prefix, 0) + change
        return len(found)

    def unlock(self, tokens: list[int]) -> int:
        return self.lock(tokens, -1)

    def evict(self, wanted: int) -> int:
        freed = 0
        while freed < wanted:
            inner = {prefix[:-1] for prefix in self.used}
            leaves = [p for p in self.used if p not in inner and not self.locks.get(p)]
            if not leaves:
                break
            gone = min(leaves, key=lambda p: self.used[p])
            while True:
                del self.used[gone]
                self.parted.discard(gone)
                freed += 1
                gone = gone[:-1]
                if gone in self.parted:
                    break
        return freed

    def _found(self, tokens: list[int]) -> Prefix:
        found = max((p for p in _prefixes(tuple(tokens)) if p in self.used), key=len, default=())
        self.parted.add(found)
        return found

    def _use(self, prefix: Prefix) -> None:
        self.clock += 1
        self.used |= dict.fromkeys(_prefixes(prefix), self.clock)


def _prefixes(tokens: Prefix) -> list[Prefix]:
    return [tokens[: i + 1] for i in range(len(tokens))]


def answers(trace: Trace) -> list[int]:
    """What each call of a trace must return."""
    cache = EveryPrefix()
    return [getattr(cache, method)(*arguments) for method, arguments in trace]


def random_trace(seed: int, steps: int, alphabet: int = 3, longest: int = 7) -> Trace:
    """Calls in any order, from a few tokens, so that prefixes meet often. Unlocked is what was locked, no more."""
    draw = random.Random(seed)  # noqa: S311
    cache = EveryPrefix()
    locked: list[list[int]] = []
    trace: list[tuple[str, tuple[Any, ...]]] = []
    for _ in range(steps):
        method = draw.choices(("match", "insert", "lock", "unlock", "evict"), (4, 5, 1.5, 1.2, 1.5))[0]
        arguments: Any = [draw.randrange(alphabet) for _ in range(draw.randint(0, longest))]
        if method == "unlock":
            if not locked:
                continue
            arguments = locked.pop(draw.randrange(len(locked)))
        elif method == "evict":
            arguments = draw.randint(0, 6)
        found = getattr(cache, method)(arguments)
        if method == "lock":
            locked.append(arguments[:found])
        trace.append((method, (arguments,)))
    return tuple(trace)


def tree_case(name: str, trace: Trace) -> Case:
    return Case(name, equals(answers(trace)), trace=trace)


def calls(*made: tuple[str, Any]) -> Trace:
    return tuple((method, (argument,)) for method, argument in made)


LONG = list(range(1000))

RADIX_TREE = (
    tree_case("an empty tree, and nothing to insert",
              calls(("match", [1]), ("insert", []), ("match", []), ("evict", 5), ("insert", [7]), ("match", [7]))),
    tree_case("a prefix of what is there is not new",
              calls(("insert", [1, 2, 3, 4]), ("insert", [1, 2]), ("insert", [1, 2, 3, 4, 5]),
                    ("match", [1, 2, 3, 4, 5]))),
    tree_case("a match inside a run parts it: only its rest is old",
              calls(("insert", [1, 2, 3, 4]), ("insert", [8, 9]), ("match", [1, 2]), ("evict", 1), ("match", [1, 2, 3]),
                    ("evict", 1), ("match", [8, 9]), ("match", [1, 2]))),
    tree_case("a lock inside a run parts it too",
              calls(("insert", [1, 2, 3, 4, 5]), ("lock", [1, 2]), ("evict", 99), ("match", [1, 2, 3]),
                    ("unlock", [1, 2]), ("evict", 99), ("match", [1]))),
    tree_case("a run that is parted after it was locked is locked in both halves",
              calls(("insert", [1, 2, 3, 4]), ("lock", [1, 2, 3, 4]), ("insert", [1, 2, 9]), ("evict", 99),
                    ("match", [1, 2, 3, 4]), ("unlock", [1, 2, 3, 4]), ("evict", 99))),
    tree_case("two locks need two unlocks",
              calls(("insert", [5, 6]), ("lock", [5, 6]), ("lock", [5, 6]), ("unlock", [5, 6]), ("evict", 1),
                    ("match", [5, 6]), ("unlock", [5, 6]), ("evict", 1), ("match", [5]))),
    tree_case("evicting stops as soon as there is enough",
              calls(("insert", [1, 1]), ("insert", [2, 2]), ("insert", [3, 3]), ("evict", 3), ("match", [3, 3]),
                    ("evict", 0), ("match", [1]), ("match", [2]), ("match", [3, 3]))),
    tree_case("what was evicted can come back",
              calls(("insert", [1, 2, 3]), ("evict", 1), ("insert", [1, 2, 3]), ("insert", [1, 2, 4]),
                    ("match", [1, 2, 3]))),
    tree_case("a long shared prefix",
              calls(("insert", LONG), ("insert", [*LONG[:700], 5000]), ("match", LONG), ("match", [*LONG[:700], 5000]),
                    ("evict", 1), ("match", [*LONG[:700], 5000, 1]), ("match", LONG))),
    tree_case("many calls, two tokens", random_trace(1, 150, alphabet=2)),
    tree_case("many calls, three tokens", random_trace(2, 200)),
    tree_case("many calls, long prompts", random_trace(3, 150, alphabet=2, longest=20)),
    tree_case("many calls, few meet", random_trace(4, 200, alphabet=8)),
)  # fmt: skip


def cached(trace: list[list[list[int]]], page_size: int) -> list[int]:
    """The rule of the exercise, word by word: the best of all requests before."""
    found = []
    for number, (prompt, _) in enumerate(trace):
        best = 0
        for before, output in trace[:number]:
            kept = before + output[:-1]
            while best < min(len(prompt) - 1, len(kept)) and prompt[: best + 1] == kept[: best + 1]:
                best += 1
        found.append(best // page_size * page_size)
    return found


def predict_case(name: str, trace: list[list[list[int]]], page_size: int) -> Case:
    return Case(name, equals(cached(trace, page_size)), (trace, page_size))


def _random_requests(seed: int, n: int) -> list[list[list[int]]]:
    draw = random.Random(seed)  # noqa: S311
    made: list[list[list[int]]] = []
    for _ in range(n):
        before = draw.choice(made)[0] if made else []
        prompt = before[: draw.randint(0, len(before))] + [draw.randrange(4) for _ in range(draw.randint(1, 12))]
        made.append([prompt, [draw.randrange(4) for _ in range(draw.randint(0, 5))]])
    return made


DOCUMENT = [i * 7 % 2048 for i in range(1200)]

PREDICT = (
    predict_case("one request finds nothing", [[[1, 2, 3], [4]]], 1),
    predict_case("no requests", [], 4),
    predict_case("a prompt that ends with a page: its last page is computed", [[list(range(8)), []]] * 2, 4),
    predict_case("one token past a page: that page counts", [[list(range(9)), []]] * 2, 4),
    predict_case("a page longer than any prompt", [[[1, 2, 3], []]] * 3, 128),
    predict_case("the best of several, not the latest",
                 [[[1, 2, 3, 4, 5], []], [[1, 2, 9], []], [[1, 2, 3, 4, 6], []]], 1),
    predict_case("an output of one token leaves nothing behind", [[[1, 2, 3], [9]], [[1, 2, 3, 9, 8], []]], 1),
    predict_case("a page of prompt and output together",
                 [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3, 4, 5, 6, 7], []], [[1, 2, 3, 4, 9, 9], []]], 4),
    predict_case("any requests, page 1", _random_requests(1, 30), 1),
    predict_case("any requests, page 3", _random_requests(2, 30), 3),
    predict_case("a document of 1,200 tokens, page 16", [[[*DOCUMENT, 3000 + i], [7, 8]] for i in range(4)], 16),
)  # fmt: skip


def _tree_of_prompts(seed: int, n: int) -> list[list[int]]:
    draw = random.Random(seed)  # noqa: S311
    return [[draw.randrange(2 + depth) for depth in range(draw.randint(1, 6))] for _ in range(n)]


ORDER = (
    order_case("no prompts", []),
    order_case("one prompt", [[4, 2]]),
    order_case("the same prompt several times", [[1, 2], [3], [1, 2], [3], [1, 2]]),
    order_case("a prompt that is the beginning of others", [[1, 2, 3], [7], [1], [1, 2], [7, 8]]),
    order_case("one that begins alike lies far away", [[1, 1, 1], [2, 1], [3, 1], [1, 1, 2], [2, 2], [3, 2], [1, 3]]),
    order_case("a tree of forty", _tree_of_prompts(1, 40)),
    order_case("a deeper one", _tree_of_prompts(2, 60)),
)

CASES = {"RadixTree": RADIX_TREE, "predict": PREDICT, "order": ORDER}
