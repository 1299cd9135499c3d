"""A round looked at: the tree that a drafter grows, and two real distributions, for the labs' figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    from labs_helpers.speculation.drafter import Drafter
    from labs_helpers.speculation.eagle_drafter import Eagle
    from labs_helpers.speculation.target import Target


@dataclass(frozen=True)
class Round:
    """tokens: of all nodes, the root first. accepted: nodes without the root. confidence: per node, what the drafter
    gave the path to it, the root 1; () where the drafter has no such figure. bonus: the target's own token."""

    tree: Tree
    tokens: tuple[int, ...]
    accepted: tuple[int, ...]
    confidence: tuple[float, ...]
    bonus: int

    @property
    def parents(self) -> tuple[int, ...]:
        return self.tree.parents


def first_round(target: Target, drafter: Drafter, prompt_ids: Sequence[int]) -> Round:
    """The first round after the first token of the greedy answer."""
    import torch

    from labs_helpers.speculation.drafter import Sampling
    from labs_helpers.speculation.verify import greedy_accept

    with target.running():
        state = target.prefill(prompt_ids, drafter.taps, all_rows=drafter.all_rows)
        first = int(state.logits.argmax())
        drafter.begin(target, prompt_ids, state.output, first, Sampling(0.0, torch.Generator()))
        draft = drafter.draft(target.capacity)
        tokens = (first, *draft.tokens)
        output = target.step(tokens, state.length, draft.tree, drafter.taps)
        verdict = greedy_accept(draft.tree, tokens, output.logits.argmax(-1).tolist())
    return Round(draft.tree, tokens, verdict.path[1:], (1.0, *draft.confidence), verdict.bonus)


def two_distributions(
    target: Target, drafter: Eagle, text: str, top: int = 8
) -> tuple[list[int], list[float], list[float]]:
    """Over the `top` tokens that the target finds likeliest for the second token of its answer: the tokens, the
    target's probabilities p and the draft's q, each normalised over these tokens. A token that the draft's vocabulary
    lacks has q = 0."""
    import torch

    from labs_helpers.model.prompts import chat_token_ids
    from labs_helpers.speculation.drafter import Sampling

    ids = chat_token_ids([("user", text)])
    with target.running():
        state = target.prefill(ids, drafter.taps, all_rows=drafter.all_rows)
        first = int(state.logits.argmax())
        drafter.begin(target, ids, state.output, first, Sampling(1.0, torch.Generator().manual_seed(0)))
        draft = drafter.draft(1)
        logits = target.step([first], state.length, Tree.chain(0)).logits[0]
        p = torch.softmax(logits, -1)
        tokens = p.topk(top).indices
        assert draft.probabilities is not None
        p, q = p[tokens], draft.probabilities[0][tokens]
    return tokens.tolist(), (p / p.sum()).tolist(), (q / q.sum()).tolist()
