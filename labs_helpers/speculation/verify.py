"""Which drafts stand: pure functions over a tree, its tokens and what the model says at every node.

Greedy: a draft stands when it is the model's own choice at its parent, so the text is the one that the model alone
writes. Sampling: rejection sampling (Leviathan et al. 2023, arXiv 2211.17192, appendix A.1; Chen et al. 2023,
arXiv 2302.01318, algorithm 2), so the text has the distribution that the model alone has. Typical acceptance (Medusa,
arXiv 2401.10774, section 2.3.1) accepts what is likely enough: faster, and LOSSY.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Verdict:
    """path: the accepted nodes from the root down, the root included. bonus: the model's own token after the last."""

    path: tuple[int, ...]
    bonus: int


def greedy_accept(tree: Tree, tokens: Sequence[int], chosen: Sequence[int]) -> Verdict:
    """The longest path whose every draft is the model's choice at its parent.

    tokens: per node; the root's is not looked at. chosen: per node, the model's greedy choice after it.
    """
    node, path = 0, [0]
    while True:
        wanted = chosen[node]
        for child in tree.children[node]:
            if tokens[child] == wanted:
                node = child
                path.append(child)
                break
        else:
            return Verdict(tuple(path), wanted)


def rejection_accept(
    tree: Tree,
    tokens: Sequence[int],
    target: torch.Tensor,
    draft: torch.Tensor | None,
    generator: torch.Generator,
) -> Verdict:
    """Accept or reject so that every emitted token has the model's distribution, whatever was drafted.

    At a node, its children are tried in order. Child x, drawn from q, is accepted with probability min(1, p(x)/q(x)).
    After a rejection p becomes the residual, max(p - q, 0) normalised, and q loses x, for siblings are different tokens
    (drawn without replacement). When no child is left, the bonus is drawn from p.

    target: fp32 [nodes, vocabulary], the model's probabilities after each node. draft: fp32 [nodes, vocabulary], row n
    the distribution that the children of n were drawn from; None when they were not drawn but chosen (a head's best
    candidates, a copied text): then q has all its weight on x, x is accepted with p(x), and a rejection takes x out
    of p.
    """
    import torch

    node, path = 0, [0]
    while True:
        p = target[node].clone()
        q = draft[node].clone() if draft is not None and tree.children[node] else None
        for child in tree.children[node]:
            x = tokens[child]
            likely = float(p[x]) if q is None else float(p[x]) / max(float(q[x]), 1e-30)
            if float(torch.rand((), generator=generator)) < likely:
                node = child
                path.append(child)
                break
            p = residual(p, q, x)
            if q is not None:
                q[x] = 0.0
                left = float(q.sum())
                q = q / left if left > 0 else None
        else:
            return Verdict(tuple(path), int(torch.multinomial(p, 1, generator=generator)))


def residual(p: torch.Tensor, q: torch.Tensor | None, token: int) -> torch.Tensor:
    """What is left of p after `token`, drawn from q, was rejected: max(p - q, 0), normalised; [vocabulary].

    With q None the token was certain, and is taken out of p.
    """
    import torch

    if q is None:
        left = p.clone()
        left[token] = 0.0
    else:
        left = torch.clamp(p - q, min=0.0)
    total = float(left.sum())
    return left / total if total > 0 else p  # p == q: a rejection has probability zero, but for rounding


def typical_accept(
    tree: Tree,
    tokens: Sequence[int],
    target: torch.Tensor,
    generator: torch.Generator,
    epsilon: float = 0.09,
    delta: float = 0.3,
) -> Verdict:
    """LOSSY: accept drafts with p(x) > min(epsilon, delta * exp(-H(p))), H the entropy of p; the longest path wins.

    Among paths of one length the likelier last draft wins. The bonus is drawn from p. Defaults are medusa-llm's.
    """
    import torch

    entropy = -(target * torch.log(target.clamp_min(1e-30))).sum(-1)
    limits = torch.clamp(delta * torch.exp(-entropy), max=epsilon).tolist()
    accepted, best, best_key = [True], 0, (0, 0.0)
    for node in range(1, len(tree)):
        parent = tree.parents[node]
        p = float(target[parent, tokens[node]])
        accepted.append(accepted[parent] and p > limits[parent])
        if accepted[node] and (tree.depths[node], p) > best_key:
            best, best_key = node, (tree.depths[node], p)
    return Verdict(tree.paths[best], int(torch.multinomial(target[best], 1, generator=generator)))
