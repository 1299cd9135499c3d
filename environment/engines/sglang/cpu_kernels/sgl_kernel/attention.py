"""Attention over a paged KV cache, in plain PyTorch.

The pool holds one row of keys and one of values per token and layer; the request-to-token table says which row is
position p of a request. So attention is: look the rows up, gather them, and let PyTorch's fused kernel do the rest.
Signatures are those of SGLang 0.5.23's `intel_amx` backend, which passes every argument by position.

Shapes: B requests, T new tokens of all of them, H query heads, K key/value heads (H is a multiple of K), D head size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import scaled_dot_product_attention

SHORT_PREFIX = 8
"""A prefix is short when there are so many times more new tokens than it has: a cold prompt still shares its first few
tokens, the template's, with every other."""


def decode_attention_cpu(
    query: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    key_scale: float,
    value_scale: float,
    output: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    new_rows: torch.Tensor,
    attn_logits: torch.Tensor,
    req_to_token: torch.Tensor,
    requests: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    logit_cap: float,
    is_cross_attention: bool,
    sliding_window: int,
    encoder_lens: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> None:
    """One new token per request: store its key and value, attend to all positions of its request.

    Args:
        query, output: [B, H, D]; `output` is written.
        key_pool, value_pool: [rows, K, D]; row `new_rows[b]` is written when `key` and `value` [B, K, D] are given.
        req_to_token: [requests, positions], the row of every position.
        requests, seq_lens: [B]; lengths include the new token.
        attn_logits: scratch space of the compiled kernel; not used.

    Raises:
        NotImplementedError: a variant of attention that the course's models do not have.
    """
    _refuse("decode_attention_cpu", logit_cap, is_cross_attention, sliding_window, encoder_lens, sinks)
    if key is not None and value is not None:
        key_pool[new_rows] = key.view(-1, *key_pool.shape[1:]).to(key_pool.dtype)
        value_pool[new_rows] = value.view(-1, *value_pool.shape[1:]).to(value_pool.dtype)
    for group in _alike(seq_lens.tolist()):
        chosen = torch.tensor(group)
        lengths = seq_lens[chosen]
        rows, inside = _rows(req_to_token, requests[chosen], lengths)
        keys = _gather(key_pool, rows, query.dtype, key_scale)
        values = _gather(value_pool, rows, query.dtype, value_scale)
        output[chosen] = attend(query[chosen].unsqueeze(1), keys, values, inside.unsqueeze(1), scale).squeeze(1)


def extend_attention_cpu(
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    output: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    key_scale: float,
    value_scale: float,
    req_to_token: torch.Tensor,
    requests: torch.Tensor,
    seq_lens: torch.Tensor,
    new_lens: torch.Tensor,
    starts: torch.Tensor,
    longest: int | None,
    scale: float,
    logit_cap: float,
    is_cross_attention: bool,
    sliding_window: int,
    encoder_lens: torch.Tensor | None,
    sinks: torch.Tensor | None,
    tree_mask: torch.Tensor | None,
    is_causal: bool,
) -> None:
    """Some new tokens per request, after a prefix that is in the pool already: prefill, and verification of drafts.

    Only the new tokens are queries. That is what a prefix-cache hit saves: with m new tokens after a prefix of p, the
    work is m x (p + m), not (p + m) squared.

    Args:
        query, output: [T, H, D], the requests one after another; `output` is written.
        key, value: [T, K, D] of the new tokens; None: they are read from the pool like the rest.
        seq_lens, new_lens: [B]; positions in all, and how many of them (the last ones) are new.
        starts: [B]; where a request's tokens begin in `query`.
        tree_mask: for speculation, [B * m * m] of bool with every request bringing m tokens: new token j is visible to
            new token i. The prefix is visible to all. None: causal.
        is_causal: False: every position of the request is visible.
        Others: as in `decode_attention_cpu`.

    Raises:
        NotImplementedError: a variant of attention that the course's models do not have.
    """
    _refuse("extend_attention_cpu", logit_cap, is_cross_attention, sliding_window, encoder_lens, sinks)
    for group in _alike(seq_lens.tolist(), new_lens.tolist()):
        chosen = torch.tensor(group)
        new, lengths = int(new_lens[group[0]]), seq_lens[chosen]
        if new == 0:
            continue
        tokens = starts[chosen].long().unsqueeze(1) + torch.arange(new)
        rows, inside = _rows(req_to_token, requests[chosen], lengths)
        keys = _gather(key_pool, rows, query.dtype, key_scale)
        values = _gather(value_pool, rows, query.dtype, value_scale)
        prefix = lengths - new
        if key is not None and value is not None:  # exact, where the pool may hold them in fewer bits
            here = (torch.arange(len(group)).unsqueeze(1), prefix.unsqueeze(1) + torch.arange(new))
            keys[here] = key.view(-1, *keys.shape[2:])[tokens]
            values[here] = value.view(-1, *values.shape[2:])[tokens]
        if tree_mask is not None:
            trees = tree_mask[: len(seq_lens) * new * new].view(-1, new, new)[chosen]
            visible = tree_visible(trees, prefix, keys.shape[1])
        elif not is_causal:
            visible = inside.unsqueeze(1).expand(-1, new, -1)
        elif new == keys.shape[1]:
            visible = None
        else:
            if int(prefix.max()) * SHORT_PREFIX <= new and bool((prefix == prefix[0]).all()):
                output[tokens] = attend_after_short_prefix(query[tokens], keys, values, scale)
                continue
            visible = causal_visible(new, prefix, keys.shape[1])
        output[tokens] = attend(query[tokens], keys, values, visible, scale)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Grouped-query attention: [B, m, H, D] over [B, L, K, D] gives [B, m, H, D].

    `visible` is [B, m, L] of bool; None means causal, with m equal to L.
    """
    return scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=None if visible is None else visible.unsqueeze(1),
        is_causal=visible is None,
        scale=scale,
        enable_gqa=True,
    ).transpose(1, 2)


def attend_after_short_prefix(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """`attend` for [B, m, H, D] new tokens after the same few tokens in every request: causal, over [B, L, K, D].

    PyTorch's kernel skips the future only when it is told "causal", which it takes to begin at position 0; a mask costs
    it a third of its speed. So the prefix gets queries as well, and their answers are thrown away.
    """
    batch, new, heads, size = query.shape
    padding = query.new_zeros(batch, key.shape[1] - new, heads, size)
    return attend(torch.cat([padding, query], dim=1), key, value, None, scale)[:, -new:]


def causal_visible(new: int, prefix: torch.Tensor, width: int) -> torch.Tensor:
    """[B, new, width]: new token i of a request sees its prefix and the new tokens up to itself."""
    last = prefix.unsqueeze(1) + torch.arange(new)
    return torch.arange(width) <= last.unsqueeze(2)


def tree_visible(trees: torch.Tensor, prefix: torch.Tensor, width: int) -> torch.Tensor:
    """[B, m, width] from [B, m, m]: every node sees the prefix and, of the new tokens, its own ancestors."""
    batch, new, _ = trees.shape
    visible = (torch.arange(width) < prefix.unsqueeze(1)).unsqueeze(1).repeat(1, new, 1)
    columns = (prefix.unsqueeze(1) + torch.arange(new)).unsqueeze(1).expand(batch, new, new)
    return visible.scatter_(2, columns, trees)


def _alike(seq_lens: list[int], new_lens: list[int] | None = None) -> Iterator[list[int]]:
    """Groups of requests that are computed together: as many new tokens, and lengths within a factor of two.

    One group would pad every request to the longest; one call per request would pay the overhead of many small ones.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for request, length in enumerate(seq_lens):
        new = 1 if new_lens is None else new_lens[request]
        groups.setdefault((new, length.bit_length()), []).append(request)
    yield from groups.values()


def _rows(
    req_to_token: torch.Tensor, requests: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pool's rows [B, L] of these requests' positions, L the longest, and [B, L]: this position exists.

    Beyond its end a request repeats its first row: a row that was never written could hold NaN, which a mask keeps.
    """
    width = int(lengths.max())
    rows = req_to_token[requests, :width].long()
    inside = torch.arange(width) < lengths.unsqueeze(1)
    return torch.where(inside, rows, rows[:, :1]), inside


def _gather(pool: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """[B, L, K, D] in the type of the computation; `scale` undoes what was divided out when the cache is quantized."""
    taken = pool.view(len(pool), -1)
    if pool.dtype.itemsize == 1:  # fp8 cannot be indexed: its bytes can
        found = taken.view(torch.uint8).index_select(0, rows.flatten()).view(pool.dtype).to(dtype) * scale
    else:
        found = taken.index_select(0, rows.flatten()).to(dtype)
    return found.view(*rows.shape, *pool.shape[1:])


def _refuse(
    operation: str,
    logit_cap: float,
    is_cross_attention: bool,
    sliding_window: int,
    encoder_lens: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> None:
    asked = {
        "a cap on logits": logit_cap > 0,
        "cross attention": is_cross_attention,
        "a sliding window": sliding_window > 0,
        "an encoder": encoder_lens is not None,
        "attention sinks": sinks is not None,
    }
    for what, given in asked.items():
        if given:
            raise NotImplementedError(f"{operation} of the course's CPU kernels does not do {what}")
