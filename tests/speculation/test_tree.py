"""A tree's mask, positions and paths follow from its parents; a tree is chosen by what its nodes are worth."""

from itertools import product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.errors import LabsError
from labs_helpers.speculation.tree import Tree, choose_tree


@st.composite
def trees(draw, most=12):
    nodes = draw(st.integers(0, most))
    return Tree((-1, *(draw(st.integers(0, node - 1)) for node in range(1, nodes + 1))))


def ancestors(parents, node):
    found = [node]
    while parents[node] >= 0:
        node = parents[node]
        found.append(node)
    return found[::-1]


@given(trees())
def test_a_node_sees_itself_and_its_ancestors_only(tree):
    for node, row in enumerate(tree.mask):
        assert {other for other, seen in enumerate(row) if seen} == set(ancestors(tree.parents, node))
    assert ((tree.additive_mask == 0) == (tree.additive_mask.new_tensor(tree.mask) == 1)).all()


@given(trees())
def test_paths_and_depths_follow_from_the_parents(tree):
    for node, path in enumerate(tree.paths):
        assert list(path) == ancestors(tree.parents, node)
        assert tree.depths[node] == len(path) - 1
    assert tree.depth == max(tree.depths)
    assert all(tree.parents[child] == node for node, row in enumerate(tree.children) for child in row)
    assert sum(map(len, tree.children)) == len(tree) - 1


def test_a_chain_is_a_lower_triangle():
    chain = Tree.chain(3)
    assert chain.mask == ((1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (1, 1, 1, 1))
    assert chain.is_chain and not Tree((-1, 0, 0)).is_chain and Tree.chain(0).is_chain


def test_medusas_paths_name_nodes_by_ranks():
    tree = Tree.from_paths([[0], [0, 0], [1], [0, 1]])
    assert tree.parents == (-1, 0, 0, 1, 1)
    assert tree.ranks == (-1, 0, 1, 0, 1)


@pytest.mark.parametrize("parents", [(), (0,), (-1, 1), (-1, 0, 3), (-1, -1)])
def test_what_is_no_tree_is_refused(parents):
    with pytest.raises(LabsError):
        Tree(parents)


def test_a_path_without_its_parent_is_refused():
    with pytest.raises(LabsError, match=r"\[1, 0\] but not its parent \[1\]"):
        Tree.from_paths([[0], [1, 0]])


def worth(tree, accuracy):
    return sum(prod(accuracy[d][tree.ranks[n]] for d, n in enumerate(path[1:])) for path in tree.paths[1:])


@given(
    st.lists(st.lists(st.integers(1, 99), min_size=2, max_size=3, unique=True), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_the_chosen_tree_is_worth_most(rates, nodes):
    accuracy = [sorted((r / 100 for r in row), reverse=True) for row in rates]
    every = [path for d in range(1, len(accuracy) + 1) for path in product(*(range(len(a)) for a in accuracy[:d]))]
    if nodes > len(every):
        with pytest.raises(LabsError):
            choose_tree(accuracy, nodes)
        return
    chosen = choose_tree(accuracy, nodes)
    assert len(chosen) == nodes + 1
    # a child is never worth more than its parent, so the best set of nodes is a tree by itself
    best = sorted((prod(accuracy[d][r] for d, r in enumerate(path)) for path in every), reverse=True)[:nodes]
    assert worth(chosen, accuracy) == pytest.approx(sum(best))


def test_no_head_no_tree():
    with pytest.raises(LabsError):
        choose_tree([], 3)
