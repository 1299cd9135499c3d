"""The radix tree does what a cache of single prefixes would do, and holds its own structure together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.bench import RadixTree
from labs_helpers.bench.radix import Node
from labs_helpers.grading.hidden.lab_3_3_2 import EveryPrefix

PROMPTS = st.lists(st.integers(0, 2), max_size=8)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("match", "insert", "lock")), PROMPTS),
        st.tuples(st.just("evict"), st.integers(0, 8)),
        st.tuples(st.just("unlock"), st.integers(0, 99)),
    ),
    max_size=60,
)


def runs_of(node: Node) -> list[Node]:
    return [n for child in node.children.values() for n in (child, *runs_of(child))]


@settings(max_examples=300, deadline=None)
@given(CALLS)
def test_every_call_returns_what_a_cache_of_single_prefixes_returns(calls):
    tree, model = RadixTree(), EveryPrefix()
    locked: list[list[int]] = []
    for method, argument in calls:
        if method == "unlock":
            if not locked:
                continue
            argument = locked.pop(argument % len(locked))
        found = getattr(tree, method)(argument)
        assert found == getattr(model, method)(argument), (method, argument)
        if method == "lock":
            locked.append(argument[:found])
        assert tree.held == len(model.used)
        for node in runs_of(tree.root):
            assert node.tokens and node.locks >= 0
            assert node.parent.children[node.tokens[0]] is node
            assert node.parent is tree.root or node.parent.last_used >= node.last_used
            assert node.parent is tree.root or node.parent.locks >= node.locks


@given(st.lists(PROMPTS, max_size=12))
def test_each_prefix_is_stored_once(prompts):
    tree = RadixTree()
    new = sum(tree.insert(prompt) for prompt in prompts)
    assert new == tree.held == len({tuple(p[: i + 1]) for p in prompts for i in range(len(p))})


@given(st.lists(PROMPTS, max_size=12))
def test_without_locks_everything_can_be_evicted(prompts):
    tree = RadixTree()
    for prompt in prompts:
        tree.insert(prompt)
    held = tree.held
    assert tree.evict(10**6) == held
    assert tree.held == 0 and not tree.root.children


def test_hits_are_counted_on_the_way_and_kept_by_both_halves():
    tree = RadixTree()
    tree.insert([1, 2, 3, 4])
    tree.match([1, 2, 3, 4])
    tree.match([1, 2])
    (upper,) = tree.root.children.values()
    (lower,) = upper.children.values()
    assert (upper.tokens, upper.hits) == ((1, 2), 2)
    assert (lower.tokens, lower.hits) == ((3, 4), 1)


def test_a_tree_of_pages_works_like_one_of_tokens():
    tree = RadixTree()
    tree.insert([(1, 2), (3, 4)])
    assert tree.match([(1, 2), (3, 5)]) == 1
