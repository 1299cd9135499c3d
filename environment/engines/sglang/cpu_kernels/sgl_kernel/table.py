"""The request-to-token table: which row of the KV pool holds position p of request r.

The scheduler hands out rows; these operations write them into the table and read them back, for many requests of
different lengths at once. "Packed" values lie one request after another without gaps. Called by SGLang's
`mem_cache/allocation.py` and `kernels/ops/speculative/cache_locs.py`.
"""

from __future__ import annotations

import torch


def assign_req_to_token_pool_cpu(
    requests: torch.Tensor,
    req_to_token: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    rows: torch.Tensor,
    pool_len: int,
) -> None:
    """Write packed `rows` to positions [start, end) of each request; `req_to_token` [requests, positions] changes."""
    where = _cells(requests, start, end)
    req_to_token[where] = rows[: len(where[0])].to(req_to_token.dtype)


def assign_extend_cache_locs_cpu(
    requests: torch.Tensor,
    req_to_token: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    rows: torch.Tensor,
    pool_len: int,
) -> None:
    """Read positions [start, end) of each request into the packed `rows`, which change."""
    where = _cells(requests, start, end)
    rows[: len(where[0])] = req_to_token[where].to(rows.dtype)


def assign_draft_cache_locs_contiguous_cpu(
    requests: torch.Tensor,
    req_to_token: torch.Tensor,
    seq_lens: torch.Tensor,
    rows: torch.Tensor,
    pool_len: int,
    topk: int,
    steps: int,
) -> None:
    """Read the `topk * steps` positions after each request's end into `rows`: where a draft will write."""
    assign_extend_cache_locs_cpu(requests, req_to_token, seq_lens, seq_lens + topk * steps, rows, pool_len)


def build_draft_decode_metadata_cpu(
    req_to_token: torch.Tensor,
    requests: torch.Tensor,
    seq_lens: torch.Tensor,
    topk: int,
    steps: int,
    pool_len: int,
) -> torch.Tensor:
    """A table in which every branch of a draft is a request of its own: [B * topk, pool_len].

    Branch t of request b has the request's prefix and then its own `steps` rows, which lie at the positions
    `seq_lens[b] + t * steps` onwards.
    """
    table = req_to_token[requests.long()].repeat_interleave(topk, 0)
    prefix = seq_lens.long().repeat_interleave(topk)
    branch = torch.arange(topk).repeat(len(seq_lens))
    own = torch.arange(steps)
    source = (prefix + branch * steps).unsqueeze(1) + own
    table.scatter_(1, prefix.unsqueeze(1) + own, table.gather(1, source))
    return table


def copy_all_layer_kv_cache_cpu(
    pointers: torch.Tensor, row_bytes: torch.Tensor, targets: torch.Tensor, sources: torch.Tensor
) -> None:
    """In every layer's pool, copy rows `sources` to rows `targets`, as if all were read before any is written.

    Args:
        pointers: [buffers], addresses of the pools (keys and values of each layer).
        row_bytes: [buffers], bytes of one row.
        targets, sources: [n], row numbers.
    """
    if len(targets) == 0:
        return
    sources, targets = sources.long(), targets.long()
    count = int(torch.maximum(sources, targets).max()) + 1
    for address, width in zip(pointers.tolist(), row_bytes.tolist(), strict=True):
        pool = _bytes_at(address, count * width).view(count, width)
        pool[targets] = pool[sources]


def _cells(requests: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every cell of the spans [start, end), one request after another."""
    start, lengths = start.long(), (end - start).long()
    first = lengths.cumsum(0) - lengths
    within = torch.arange(int(lengths.sum())) - first.repeat_interleave(lengths)
    return requests.long().repeat_interleave(lengths), start.repeat_interleave(lengths) + within


def _bytes_at(address: int, size: int) -> torch.Tensor:
    """Memory that somebody else owns, as a tensor of bytes."""
    import ctypes

    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
