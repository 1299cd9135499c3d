"""Trees of draft tokens: built as a draft chose them, verified so that speculation never changes greedy output."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

QLEN_ONLY = 1
VOCABULARY = 3
"""Small, so that guesses are often right, and siblings often alike."""


@dataclass(frozen=True)
class Tree:
    """Parents of nodes 0 to m - 1, each smaller than its node; -1 for node 0."""

    parents: tuple[int, ...]

    def path(self, node: int) -> list[int]:
        """From the root to `node`, both included."""
        return [] if node == -1 else [*self.path(self.parents[node]), node]

    def mask(self) -> list[list[bool]]:
        return [[j in self.path(i) for j in range(len(self.parents))] for i in range(len(self.parents))]

    def children(self, node: int) -> list[int]:
        return [child for child, parent in enumerate(self.parents) if parent == node]


@st.composite
def trees(draw: st.DrawFn, nodes: int) -> Tree:
    return Tree((-1, *(draw(st.integers(0, node - 1)) for node in range(1, nodes))))


BATCHES = st.integers(2, 9).flatmap(lambda nodes: st.lists(trees(nodes), min_size=1, max_size=4))


def described(batch: list[Tree], seq_lens: list[int], found: dict[str, torch.Tensor]) -> None:
    """Assert that the descriptions are those of these trees."""
    nodes = len(batch[0].parents)
    for number, (tree, length) in enumerate(zip(batch, seq_lens, strict=True)):
        depth = [len(tree.path(node)) - 1 for node in range(nodes)]
        assert found["positions"].view(-1, nodes)[number].tolist() == [length + d for d in depth]
        assert found["index"][number].tolist() == [number * nodes + node for node in range(nodes)]
        for node in range(nodes):
            child, chain = int(found["next_token"][number, node]), []
            while child != -1:
                chain.append(child)
                child = int(found["next_sibling"][number, child])
            assert chain == tree.children(node), "first child, then its siblings, in order"
        assert found["next_sibling"][number, 0] == -1


def empty(batch: int, nodes: int) -> dict[str, torch.Tensor]:
    links = {name: torch.full((batch, nodes), -9) for name in ("index", "next_token", "next_sibling")}
    return {**links, "positions": torch.full((batch * nodes,), -9)}


def links(batch: list[Tree], seq_lens: list[int]) -> dict[str, torch.Tensor]:
    """The descriptions of these trees, from their masks."""
    from sgl_kernel.speculative import reconstruct_indices_from_tree_mask

    nodes = len(batch[0].parents)
    found = empty(len(batch), nodes)
    mask = torch.tensor([tree.mask() for tree in batch]).flatten()
    reconstruct_indices_from_tree_mask(
        mask,
        torch.tensor(seq_lens),
        found["positions"],
        found["index"],
        found["next_token"],
        found["next_sibling"],
        len(batch),
        nodes,
    )
    return found


@given(BATCHES, st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_tree_is_recovered_from_its_mask(batch, length):
    seq_lens = [length + number for number in range(len(batch))]
    described(batch, seq_lens, links(batch, seq_lens))


def drafted(topk: int, steps: int, nodes: int, seed: int) -> tuple[Tree, list[int], list[int]]:
    """A tree as an EAGLE draft makes one: its parent list, its chosen candidates, and the tree they mean.

    Each level keeps its `topk` best candidates, each of which has `topk` children; of all candidates the best are
    verified. A child is less likely than its parent.
    """
    generator = torch.Generator().manual_seed(seed)
    score, parent = {}, {}
    level = list(range(topk))
    for candidate in level:
        score[candidate], parent[candidate] = float(torch.rand((), generator=generator)), None
    parent_list = [-1]
    for _ in range(steps - 1):
        kept = sorted(sorted(level, key=lambda c: -score[c])[:topk])
        parent_list += kept
        level = []
        for above in kept:
            for _ in range(topk):
                candidate = len(score)
                score[candidate] = score[above] * float(torch.rand((), generator=generator)) * 0.99
                parent[candidate] = above
                level.append(candidate)
    chosen = sorted(sorted(score, key=lambda c: -score[c])[: nodes - 1])
    number = {candidate: node for node, candidate in enumerate(chosen, 1)}
    parents = (-1, *(0 if parent[c] is None else number[parent[c]] for c in chosen))
    return Tree(parents), parent_list, chosen


@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 12), st.integers(0, 2**16), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_the_tree_of_a_draft_is_the_one_its_candidates_mean(topk, steps, nodes, seed, batch_size):
    import sgl_kernel

    candidates = topk + (steps - 1) * topk * topk
    nodes = min(nodes, candidates + 1)
    drafts = [drafted(topk, steps, nodes, seed + number) for number in range(batch_size)]
    batch, seq_lens = [tree for tree, _, _ in drafts], [3 + 2 * number for number in range(batch_size)]
    # with one level SGLang has no parents to name
    parent_list = torch.tensor([p for _, p, _ in drafts]) if steps > 1 else torch.empty(batch_size, 0, dtype=torch.long)
    found = empty(batch_size, nodes)
    mask = torch.ones(batch_size * nodes * nodes, dtype=torch.bool)
    sgl_kernel.build_tree_kernel_efficient_cpu(
        parent_list,
        torch.tensor([c for _, _, c in drafts]),
        torch.tensor(seq_lens),
        mask,
        found["positions"],
        found["index"],
        found["next_token"],
        found["next_sibling"],
        topk,
        steps,
        nodes,
        QLEN_ONLY,
    )
    assert mask.view(batch_size, nodes, nodes).tolist() == [tree.mask() for tree in batch]
    described(batch, seq_lens, found)


def test_a_mask_of_another_layout_is_refused_by_name():
    import sgl_kernel

    none = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(NotImplementedError, match=r"build_tree_kernel_efficient_cpu .* mask mode 0"):
        sgl_kernel.build_tree_kernel_efficient_cpu(*[none] * 8, 1, 1, 2, 0)


def greedy(text: tuple[int, ...]) -> int:
    """A target model: the next token is a function of all tokens before it."""
    return hashlib.sha256(bytes(text)).digest()[0] % VOCABULARY


@given(BATCHES, st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_accepted_is_what_greedy_decoding_would_have_written(batch, data):
    import sgl_kernel

    nodes, size = len(batch[0].parents), len(batch)
    tokens = [[data.draw(st.integers(0, VOCABULARY - 1)) for _ in range(nodes)] for _ in batch]
    # what the target says after each node, given the tokens on the path to it
    target = [
        [greedy(tuple(tokens[b][n] for n in tree.path(node))) for node in range(nodes)] for b, tree in enumerate(batch)
    ]
    longest = data.draw(st.integers(1, nodes))
    found = links(batch, [0] * size)
    predicts = torch.full((size * nodes,), -5, dtype=torch.int32)
    accept_index = torch.full((size, longest), -1, dtype=torch.int32)
    accepted = torch.full((size,), -5, dtype=torch.int32)
    sgl_kernel.verify_tree_greedy_cpu(
        predicts=predicts,
        accept_index=accept_index,
        accept_token_num=accepted,
        candidates=torch.tensor(tokens),
        retrive_index=found["index"],
        retrive_next_token=found["next_token"],
        retrive_next_sibling=found["next_sibling"],
        target_predict=torch.tensor(target),
    )
    for b, tree in enumerate(batch):
        path = [row - b * nodes for row in accept_index[b].tolist() if row != -1]
        assert path[0] == 0 and len(path) == accepted[b] + 1
        assert accept_index[b, len(path) :].tolist() == [-1] * (longest - len(path))
        assert path == tree.path(path[-1]), "a path from the root"
        written = [int(predicts[b * nodes + node]) for node in path]
        text = [tokens[b][0]]
        for token in written:
            assert token == greedy(tuple(text))
            text.append(token)
        right = [child for child in tree.children(path[-1]) if tokens[b][child] == written[-1]]
        assert not right or len(path) == longest, "a right guess is never left out"


def test_the_bonus_token_is_the_last_accepted_one():
    import sgl_kernel

    bonus = torch.zeros(3, dtype=torch.int64)
    tokens = torch.tensor([[7, 8, 9, 0], [4, 0, 0, 0], [1, 2, 3, 5]], dtype=torch.int32).flatten()
    sgl_kernel.fill_bonus_tokens_cpu(tokens, torch.tensor([3, 1, 4], dtype=torch.int32), bonus, 4)
    assert bonus.tolist() == [9, 4, 5]


def test_the_kv_rows_of_accepted_nodes_are_packed_in_order():
    import sgl_kernel

    accepted = torch.zeros(6, dtype=torch.long)
    sgl_kernel.fill_accept_out_cache_loc_cpu(
        torch.tensor([[0, 2, -1], [3, -1, -1]], dtype=torch.int32), torch.tensor([50, 51, 52, 53, 54, 55]), accepted
    )
    assert accepted.tolist() == [50, 52, 53, 0, 0, 0]
