"""EAGLE and EAGLE-3 as they run: chains, and trees that grow where the draft is confident.

Li et al. 2024, arXiv 2401.15077 (EAGLE) and 2406.16858 (EAGLE-2: expansion and rerank by confidence); Li et al. 2025,
arXiv 2503.01840 (EAGLE-3). Both drafts run alike; they differ in what they read (`eagle_runtime`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from labs_helpers.errors import LabsError
from labs_helpers.speculation.drafter import NOTHING, Draft, Sampling
from labs_helpers.speculation.eagle_runtime import EagleLayer
from labs_helpers.speculation.target import ROOM
from labs_helpers.speculation.tree import Tree, shape

if TYPE_CHECKING:
    from labs_helpers.speculation.target import Output, Target


class Eagle:
    """Drafts with one decoder layer behind the target's own features.

    After a verification the rows of the layer's cache are written anew from the target's features; the layer's own
    outputs stand for them only while it drafts ahead.

    Args:
        topk, nodes: 1 and None draft a chain. Otherwise each of `depth` steps takes the topk best candidates after each
            node that it expands, and the `nodes` likeliest of all candidates are verified; a node's likelihood is the
            product along its path.
        expand: nodes expanded per step; None is topk, as in EAGLE-2. With 1 the draft steps are a chain's, of one row,
            and what the chain passed by is verified beside it where it is likelier than the chain's end.
        confident: a chain (or expand=1) ends early when the product of its probabilities falls below this.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        layer: EagleLayer,
        depth: int,
        topk: int = 1,
        nodes: int | None = None,
        confident: float = 0.0,
        expand: int | None = None,
    ) -> None:
        if (
            depth < 1
            or topk < 1
            or (nodes is not None and nodes < 1)
            or (topk > 1 and nodes is None)
            or expand not in (None, 1, topk)
        ):
            raise LabsError(
                f"no draft of depth {depth}, topk {topk} and {nodes} nodes",
                "give a depth of at least 1, for topk above 1 a number of nodes, and expand 1 or topk",
            )
        if depth * topk > ROOM:
            raise LabsError(f"{depth} steps of {topk} nodes exceed the cache's {ROOM} spare rows", "draft fewer")
        self.name, self.taps, self.all_rows = name, layer.taps, layer.fuse is None
        self.layer, self.depth, self.topk, self.nodes, self.confident = layer, depth, topk, nodes, confident
        self._spine_only = expand == 1 and nodes is not None
        self._turns = target.rotation.turns
        self._turn_list = self._turns.unbind(0)
        spec = target.spec
        self._group, self._columns = spec.heads // spec.kv_heads, target.cache.shape[1]
        self._masks = [torch.zeros(topk * self._group, self._columns + step * topk) for step in range(depth + 1)]

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        self._sampling, self._past = sampling, 0
        self._unread: tuple[Output, Sequence[int] | None, tuple[int, ...]] | None
        self._unread = (output, None, (*prompt[1:], first))

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        if self._unread is not None:  # the last round drafted nothing
            self._read()
        self._unread = (output, path, tuple(tokens))

    def draft(self, room: int) -> Draft:
        depth = min(self.depth, room)
        if depth < 1:
            return Draft((), NOTHING)
        found, logits = self._read()
        if self.nodes is None:
            return self._chain(found, logits, depth)
        if self._spine_only:
            return self._spine(found, logits, depth)
        return self._grown(found, logits, depth)

    def _read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the rows of the tokens that the target has verified; the layer's output at the last of them."""
        assert self._unread is not None, "a round is drafted after begin or accept"
        output, path, tokens = self._unread
        self._unread = None
        features = self.layer.features(output)
        if path is not None and path[-1] == len(path) - 1:
            features = features[: len(path)]
        elif path is not None:
            features = features[torch.tensor(path)]
        past, rows = self._past, len(tokens)
        embedded = self.layer.table[torch.tensor(tokens)]
        self._past = past + rows
        return self.layer.run(features, embedded, past, self._turns[past : past + rows], None, last_row=True)

    def _chain(self, found: torch.Tensor, logits: torch.Tensor, depth: int) -> Draft:
        layer, certain = self.layer, 1.0
        tokens: list[int] = []
        drawn: list[torch.Tensor] = []
        for step in range(depth):
            if self._sampling.temperature:
                index = self._draw(logits, drawn)
            elif self.confident:
                likely, best = torch.softmax(logits[0], -1).max(-1)
                index, certain = int(best), certain * float(likely)
            else:
                index = int(logits.argmax())
            tokens.append(layer.id_list[index])
            if step + 1 == depth or certain < self.confident:
                break
            past = self._past + step
            found, logits = layer.step(found, tokens[-1], past, self._turn_list[past])
        drawn_from = torch.stack([*drawn, torch.zeros_like(drawn[0])]) if drawn else None
        return Draft(tuple(tokens), Tree.chain(len(tokens)), drawn_from)

    def _spine(self, found: torch.Tensor, logits: torch.Tensor, depth: int) -> Draft:
        """A chain of best candidates; of them and of those passed by, the likeliest. A sibling is never likelier than
        its parent on the chain, so what is chosen is a tree."""
        layer, k, certain = self.layer, self.topk, 1.0
        candidates: list[tuple[float, int, int]] = []
        for step in range(depth):
            likely, best = torch.softmax(logits, -1).topk(k)
            chances, indices = likely[0].tolist(), best[0].tolist()
            candidates += [(-certain * chance, step, index) for chance, index in zip(chances, indices, strict=True)]
            certain *= chances[0]
            if step + 1 == depth or certain < self.confident:
                break
            past = self._past + step
            found, logits = layer.step(found, layer.id_list[indices[0]], past, self._turn_list[past])
        chain = [position * k for position in range(len(candidates) // k)]
        order = sorted(range(len(candidates)), key=lambda at: (candidates[at][0], candidates[at][1]))
        kept = sorted(order[: self.nodes])
        number = {at: node for node, at in enumerate(kept, 1)}
        parents = (-1, *(number[chain[at // k - 1]] if at >= k else 0 for at in kept))
        tokens = tuple(layer.id_list[candidates[at][2]] for at in kept)
        return Draft(tokens, shape(parents), None, tuple(-candidates[at][0] for at in kept))

    def _draw(self, logits: torch.Tensor, drawn: list[torch.Tensor]) -> int:
        """Draw a draft token's index; its distribution, over the target's vocabulary, goes to `drawn`."""
        likely = torch.softmax(logits[0] / self._sampling.temperature, -1)
        drawn.append(torch.zeros(len(self.layer.table)).index_copy_(0, self.layer.ids, likely))
        return int(torch.multinomial(likely, 1, generator=self._sampling.generator))

    def _grown(self, found: torch.Tensor, logits: torch.Tensor, depth: int) -> Draft:
        """Expansion and rerank (EAGLE-2, section 4): candidates are numbered as they come up, the root is 0."""
        k, layer = self.topk, self.layer
        scores, indices = torch.log_softmax(logits, -1).topk(k)
        tokens = layer.ids[indices[0]]
        frontier, score = torch.arange(1, k + 1), scores[0]
        all_scores, all_tokens, all_parents = [score], [tokens], [torch.zeros(k, dtype=torch.long)]
        numbered = 1 + k
        seen = torch.zeros(k, 0)
        own = torch.full((k, k), -torch.inf).fill_diagonal_(0.0)
        features = found.expand(k, -1)
        for step in range(1, depth):
            past = self._past + (step - 1) * k
            seen = torch.cat([seen, own], 1)
            mask = self._masks[step]
            mask[:, self._columns :] = seen.repeat_interleave(self._group, 0)
            at = self._past + step - 1
            found, logits = layer.run(
                features, layer.table[tokens], past, self._turns[at : at + 1], mask[:, self._columns - self._past :]
            )
            scores, indices = torch.log_softmax(logits, -1).topk(k)
            candidates = (scores + score[:, None]).view(-1)
            ids = layer.ids[indices.view(-1)]
            all_scores.append(candidates)
            all_tokens.append(ids)
            all_parents.append(frontier.repeat_interleave(k))
            score, best = candidates.topk(k)
            rows = best // k
            frontier, tokens, features, seen = best + numbered, ids[best], found[rows], seen[rows]
            numbered += k * k
        return self._reranked(torch.cat(all_scores), torch.cat(all_tokens), torch.cat(all_parents))

    def _reranked(self, scores: torch.Tensor, tokens: torch.Tensor, parents: torch.Tensor) -> Draft:
        """The likeliest candidates. A parent is never less likely than its child, and stands before it where they are
        equal, so the chosen nodes are a tree."""
        count = min(self.nodes or 1, len(scores))
        kept = scores.sort(descending=True, stable=True).indices[:count].sort().values
        number = {0: 0}
        shaped = [-1]
        for node, (candidate, parent) in enumerate(zip(kept.tolist(), parents[kept].tolist(), strict=True), 1):
            number[candidate + 1] = node
            shaped.append(number[parent])
        return Draft(tuple(tokens[kept].tolist()), shape(tuple(shaped)), None, tuple(scores[kept].exp().tolist()))
