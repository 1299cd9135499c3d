"""A token tree: drafts that share beginnings, verified in one step of the model.

Node 0 is the root, the last token that is certain; every other node is a drafted token that follows its parent
(Miao et al. 2024, SpecInfer, arXiv 2305.09781, section 3; Cai et al. 2024, Medusa, arXiv 2401.10774, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tree:
    """The shape of a tree.

    parents: parents[0] == -1, and every other node stands after its parent.
    ranks: per node, which candidate of its head it is (0 the best); () where nodes have none. The root's is -1.

    Raises:
        LabsError: a node stands before its parent, or the first is no root.
    """

    parents: tuple[int, ...]
    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.parents or self.parents[0] != -1:
            raise LabsError(f"a tree begins with its root, whose parent is -1, not {self.parents[:1]}", "add the root")
        wrong = [node for node, parent in enumerate(self.parents) if node and not 0 <= parent < node]
        if wrong:
            raise LabsError(f"node {wrong[0]} of {list(self.parents)} stands before its parent", "put parents first")
        if self.ranks and len(self.ranks) != len(self.parents):
            raise LabsError(f"{len(self.ranks)} ranks for {len(self.parents)} nodes", "give every node one")

    def __len__(self) -> int:
        """Nodes, the root included: the tokens that the model reads to verify it."""
        return len(self.parents)

    @classmethod
    def chain(cls, drafts: int) -> Tree:
        """A root and `drafts` nodes in a line."""
        return _chain(drafts)

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[int]]) -> Tree:
        """From Medusa's notation: each node by the ranks of the candidates from the root down to it.

        [[0], [0, 0], [1]]: the best candidate of head 1, after it the best of head 2, and the second best of head 1.

        Raises:
            LabsError: a node is named without its parent.
        """
        nodes = sorted({tuple(path) for path in paths if len(path)}, key=lambda path: (len(path), path))
        number = {(): 0} | {path: i for i, path in enumerate(nodes, 1)}
        lost = [path for path in nodes if path[:-1] not in number]
        if lost:
            raise LabsError(f"the tree has {list(lost[0])} but not its parent {list(lost[0][:-1])}", "add the parent")
        return cls((-1, *(number[path[:-1]] for path in nodes)), (-1, *(path[-1] for path in nodes)))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Steps from the root, which is at 0: a node's position in the text, less the root's."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def depth(self) -> int:
        """Of the deepest node: how many drafts one step can accept at most."""
        return max(self.depths)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Per node its children, in the order of the nodes."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents[1:], 1):
            found[parent].append(node)
        return tuple(map(tuple, found))

    @cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Per node, the nodes from the root down to it, both included."""
        found: list[tuple[int, ...]] = [(0,)]
        for node, parent in enumerate(self.parents[1:], 1):
            found.append((*found[parent], node))
        return tuple(found)

    @cached_property
    def mask(self) -> tuple[tuple[int, ...], ...]:
        """Rows of 0 and 1: which nodes a node sees, namely itself and its ancestors."""
        lineages = [set(path) for path in self.paths]
        return tuple(tuple(int(other in seen) for other in range(len(self))) for seen in lineages)

    @cached_property
    def is_chain(self) -> bool:
        """Whether no two nodes have the same parent."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    @cached_property
    def positions(self) -> torch.Tensor:
        """The depths as int64 [nodes]."""
        import torch

        return torch.tensor(self.depths)

    @cached_property
    def additive_mask(self) -> torch.Tensor:
        """fp32 [nodes, nodes]: 0 where a node sees another, minus infinity elsewhere."""
        import torch

        seen = torch.tensor(self.mask, dtype=torch.bool)
        return torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)


@lru_cache(maxsize=4096)
def of_paths(paths: tuple[tuple[int, ...], ...]) -> Tree:
    """The tree of these paths; the same object for the same paths, so that its mask is made once."""
    return Tree.from_paths(paths)


@lru_cache(maxsize=256)
def _chain(drafts: int) -> Tree:
    return Tree(tuple(range(-1, drafts)), (-1, *[0] * drafts))


@lru_cache(maxsize=4096)
def shape(parents: tuple[int, ...]) -> Tree:
    """The tree of these parents; the same object for the same parents, so that its mask is made once."""
    return Tree(parents)


def choose_tree(accuracy: Sequence[Sequence[float]], nodes: int) -> Tree:
    """The tree of `nodes` drafted nodes with the greatest expected acceptance length, if heads err independently.

    accuracy[d][r]: how often the candidate of rank r of head d is the model's own token. A node is accepted with the
    product along its path, and the expected number of accepted drafts is the sum over all nodes; so the best tree takes
    the nodes of the greatest products, which never come before their parents (Medusa, section 2.3.3).

    Raises:
        LabsError: there is no head, or fewer candidates than nodes.
    """
    if not accuracy or not all(accuracy) or nodes < 0:
        raise LabsError("a tree is chosen from at least one head's accuracies and a number of nodes", "give both")
    paths = best_paths(accuracy, nodes)
    if len(paths) < nodes:
        raise LabsError(f"these heads have {len(paths)} candidates, not {nodes}", "ask for a smaller tree")
    return Tree.from_paths(paths)


def best_paths(accuracy: Sequence[Sequence[float]], nodes: int) -> list[tuple[int, ...]]:
    """Up to `nodes` paths of ranks with the greatest products, parents first; rates fall from rank to rank."""
    paths: list[tuple[int, ...]] = []
    heap: list[tuple[float, int, tuple[int, ...]]] = [(-accuracy[0][0], 1, (0,))]
    while heap and len(paths) < nodes:
        gain, depth, path = heappop(heap)
        paths.append(path)
        rates, rank = accuracy[depth - 1], path[-1]
        if rank + 1 < len(rates):  # its next sibling: the same parent's probability, the next rate
            parent = gain / rates[rank] if rates[rank] else 0.0
            heappush(heap, (parent * rates[rank + 1], depth, (*path[:-1], rank + 1)))
        if depth < len(accuracy):
            heappush(heap, (gain * accuracy[depth][0], depth + 1, (*path, 0)))
    return paths
