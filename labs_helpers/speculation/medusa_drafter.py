"""Medusa as it runs: all heads in a few products, and the candidates of a static tree picked from them.

Cai et al. 2024, arXiv 2401.10774. The heads read the state at the last accepted token, so all of them speak about that
one place: head i about the token i + 1 after the root. One product per residual layer, and one output product for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from labs_helpers.errors import LabsError
from labs_helpers.speculation.drafter import NOTHING, Draft, Sampling
from labs_helpers.speculation.packed import Linear, WeightType
from labs_helpers.speculation.tree import Tree, best_paths, of_paths

if TYPE_CHECKING:
    from labs_helpers.speculation.medusa_heads import MedusaHeads
    from labs_helpers.speculation.target import Output, Target

CANDIDATES = 4
"""Of each head that a growing tree may take."""


class Medusa:
    """Drafts for a static tree from Medusa's heads. Node ranks say which candidate of its depth's head a node takes.

    grows: choose the tree anew in every round, of as many nodes, by the heads' own probabilities instead of their
    average accuracies (what EAGLE-2 does for EAGLE): deep where the heads are sure, broad where they are not.
    """

    name = "medusa"
    taps: tuple[int, ...] = ()
    all_rows = False

    def __init__(self, heads: MedusaHeads, tree: Tree, kind: WeightType = "int8", grows: bool = False) -> None:
        if tree.depth > heads.heads or not tree.ranks:
            raise LabsError(
                f"a tree of depth {tree.depth} with ranks {tree.ranks} does not fit {heads.heads} heads",
                "choose it with choose_tree from these heads' accuracies",
            )
        self.tree, self._grows = tree, grows
        used = heads.heads if grows else max(tree.depth, 1)
        tensors = heads.state_dict()
        layers = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith("blocks."))

        def part(head: int, layer: int, what: str) -> torch.Tensor:
            return tensors[f"blocks.{head}.layers.{layer}.{what}"]

        self._first = Linear(
            torch.cat([part(head, 0, "weight") for head in range(used)]),
            torch.cat([part(head, 0, "bias") for head in range(used)]),
            kind,
            silu=True,
        )
        self._later = [
            [Linear(part(head, layer, "weight"), part(head, layer, "bias"), kind, silu=True) for head in range(used)]
            for layer in range(1, layers)
        ]
        outputs = 1 if heads.shared else used
        self._outputs = [Linear(tensors[f"lm_heads.{i}.weight"], None, kind) for i in range(outputs)]
        self._shared, self._heads, self._ids = heads.shared, used, heads.token_map.clone()
        self._best = max(tree.ranks) == 0
        self._most = max(tree.ranks) + 1
        self._picked = torch.tensor(
            [(depth - 1) * self._most + rank for depth, rank in zip(tree.depths[1:], tree.ranks[1:], strict=True)]
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one round reads."""
        later = sum(matrix.bytes for layer in self._later for matrix in layer)
        return self._first.bytes + later + sum(output.bytes for output in self._outputs)

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        self._hidden = output.hidden[-1:]

    def draft(self, room: int) -> Draft:
        if len(self.tree) == 1 or room < 1:
            return Draft((), NOTHING)
        logits = self.logits(self._hidden)
        if self._grows:
            return self._grown(logits)
        best = logits.argmax(-1) if self._best else logits.topk(self._most, -1).indices.view(-1)[self._picked]
        return Draft(tuple(self._ids[best].tolist()), self.tree)

    def _grown(self, logits: torch.Tensor) -> Draft:
        likely, best = torch.softmax(logits, -1).topk(CANDIDATES, -1)
        tree = of_paths(tuple(best_paths(likely.tolist(), len(self.tree) - 1)))
        ids = self._ids[best].tolist()
        tokens = (ids[depth - 1][rank] for depth, rank in zip(tree.depths[1:], tree.ranks[1:], strict=True))
        return Draft(tuple(tokens), tree)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[heads, draft vocabulary] from the state [1, hidden] after the final norm."""
        states = self._first(hidden).view(self._heads, -1).add_(hidden)
        for layer in self._later:
            rows = [matrix(states[i : i + 1]) for i, matrix in enumerate(layer)]
            states = torch.cat(rows).add_(states)
        if self._shared:
            return self._outputs[0](states)
        return torch.cat([output(states[i : i + 1]) for i, output in enumerate(self._outputs)])

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        self._hidden = output.hidden[path[-1] : path[-1] + 1]
