"""An EAGLE draft run several steps deep from every place of a batch at once, as training and evaluation need it.

At step s from anchor t the draft stands at position t + s, reads its own former output instead of a feature it cannot
have, and sees the keys of true features up to t, then those of its own chain: what happens when it drafts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from labs_helpers.speculation.features import Frozen
from labs_helpers.speculation.rows import Rows

if TYPE_CHECKING:
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft
    from labs_helpers.speculation.eagle_draft import EagleDraft

Chain = list[tuple[torch.Tensor, torch.Tensor]]


def pick(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x [rows, t, ...] at index [rows, a]: [rows, a, ...]."""
    return x[torch.arange(len(x))[:, None], index]


def unroll(
    draft: EagleDraft | Eagle3Draft, model: Frozen, rows: Rows, features: torch.Tensor, depth: int
) -> list[torch.Tensor]:
    """The draft's output [rows, a, hidden] at each of `depth` steps from every anchor, given the true tokens.

    features: what the draft takes for features, [rows, t, hidden].
    """
    table, (cosines, sines) = model.embedding, model.turns
    layer, t = draft.layer, rows.ids.shape[1]
    following = torch.cat([rows.ids[:, 1:], rows.ids[:, -1:]], 1)
    x, residual = draft.enter(table[following].to(features.dtype), features)
    cos, sin = (values[:t].expand(len(rows.ids), t, -1) for values in (cosines, sines))
    _, keys, values = layer.self_attn.project(x, cos, sin)
    seen = torch.arange(t) <= rows.anchors[..., None]
    x, residual = pick(x, rows.anchors), pick(residual, rows.anchors)
    chain: Chain = []
    found = []
    for step in range(depth):
        place = rows.anchors + step
        q, k, v = layer.self_attn.project(x, cosines[place], sines[place])
        if step:
            chain.append((k, v))
        found.append(layer.finish(residual, attend(q, keys, values, seen, chain)))
        if step + 1 < depth:
            x, residual = draft.enter(table[pick(rows.ids, rows.at(step + 2))].to(x.dtype), found[-1])
    return found


def attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor, chain: Chain) -> torch.Tensor:
    """Attention of anchors to true features and to their own chains.

    q [rows, heads, a, d]; keys, values [rows, KV heads, t, d]; seen bool [rows, a, t]; chain: keys and values
    [rows, KV heads, a, d] of the chain's steps, the present one among them. Returns [rows, heads, a, d].
    """
    rows, heads, a, size = q.shape
    groups, t = keys.shape[1], keys.shape[2]
    q = q.reshape(rows, groups, heads // groups, a, size) * size**-0.5
    scores = (q.flatten(2, 3) @ keys.transpose(2, 3)).view(rows, groups, -1, a, t).float()
    scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
    own = [(q * k[:, :, None]).sum(-1, keepdim=True).float() for k, _ in chain]
    weights = torch.cat([scores, *own], -1).softmax(-1).to(values.dtype)
    result = (weights[..., :t].flatten(2, 3) @ values).view(rows, groups, -1, a, size)
    for i, (_, v) in enumerate(chain):
        result = result + weights[..., t + i, None] * v[:, :, None]
    return result.reshape(rows, heads, a, size)
