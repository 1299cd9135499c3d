"""A radix tree over token prefixes: which KV entries can be reused, and which to give up first.

Source: Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs" (arXiv 2312.07104), section 3.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import takewhile

Token = Hashable
"""A token id; or a page, the tuple of its token ids, where a cache keeps whole pages only."""


class Node:
    """A run of tokens that no request has parted yet, and what may come after it."""

    def __init__(self, tokens: Sequence[Token] = (), parent: Node | None = None) -> None:
        self.tokens = tuple(tokens)
        self.parent = parent
        self.children: dict[Token, Node] = {}
        """By the first token of each."""
        self.last_used = 0
        self.locks = 0
        """Running requests that read this run: it must not go."""
        self.hits = 0
        """Matches that came through here."""


class RadixTree:
    """The prefixes that are cached.

    Every `match` and `insert` is one tick of a logical clock and marks all it walked over as used then. Where a walk
    ends inside a run, the run is parted: a run has one age and one lock, so a part of it cannot have its own.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.clock = 0

    def match(self, tokens: Sequence[Token]) -> int:
        """How many of the first tokens are cached; counts as a hit of every run on the way."""
        node, matched = self._walk(tokens)
        self._use(node, hit=True)
        return matched

    def insert(self, tokens: Sequence[Token]) -> int:
        """Cache these tokens. Returns how many of them were new."""
        node, matched = self._walk(tokens)
        if matched < len(tokens):
            leaf = Node(tokens[matched:], node)
            node.children[tokens[matched]] = leaf
            node = leaf
        self._use(node)
        return len(tokens) - matched

    def lock(self, tokens: Sequence[Token]) -> int:
        """Keep what is cached of these tokens until `unlock`. Returns how many that are. Nested locks count."""
        return self._add_locks(tokens, 1)

    def unlock(self, tokens: Sequence[Token]) -> int:
        """Take one lock back; the tokens are those that were locked."""
        return self._add_locks(tokens, -1)

    def evict(self, wanted: int) -> int:
        """Remove unlocked leaves, the longest unused first, until `wanted` tokens are gone. Returns how many went.

        Leaves go whole, so it may be more; it is less when everything left is locked.
        """
        freed = 0
        while freed < wanted:
            leaves = [node for node in self.nodes() if not node.children and not node.locks]
            if not leaves:
                break
            oldest = min(leaves, key=lambda node: node.last_used)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.tokens[0]]
            freed += len(oldest.tokens)
        return freed

    def nodes(self) -> Iterator[Node]:
        """Every run, the root left out."""
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())

    @property
    def held(self) -> int:
        """Tokens in the tree."""
        return sum(len(node.tokens) for node in self.nodes())

    def _walk(self, tokens: Sequence[Token]) -> tuple[Node, int]:
        """The node where the longest cached prefix ends, and the length of that prefix."""
        node, matched = self.root, 0
        while matched < len(tokens) and (child := node.children.get(tokens[matched])):
            pairs = zip(child.tokens, tokens[matched:], strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            matched += shared
            node = child if shared == len(child.tokens) else _split(child, shared)
        return node, matched

    def _use(self, node: Node | None, hit: bool = False) -> None:
        self.clock += 1
        while node is not None:
            node.last_used = self.clock
            node.hits += hit
            node = node.parent

    def _add_locks(self, tokens: Sequence[Token], change: int) -> int:
        found, matched = self._walk(tokens)
        node: Node | None = found
        while node is not None:
            node.locks += change
            node = node.parent
        return matched


def _split(node: Node, at: int) -> Node:
    """Part a run after `at` tokens. Returns the upper half, which inherits age, locks and hits."""
    assert node.parent is not None
    upper = Node(node.tokens[:at], node.parent)
    upper.last_used, upper.locks, upper.hits = node.last_used, node.locks, node.hits
    node.parent.children[node.tokens[0]] = upper
    node.tokens, node.parent = node.tokens[at:], upper
    upper.children = {node.tokens[0]: node}
    return upper
