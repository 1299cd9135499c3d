"""Attention over the paged KV cache equals a loop over heads and positions, for any mixture of requests.

Every row of the pool that no request owns holds NaN: reading one of them anywhere shows in the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

HEAD = 8
SCALE = 1 / math.sqrt(HEAD)
HEADS = [(4, 4), (6, 2), (8, 1)]


@dataclass
class Pool:
    """Requests of known lengths, their keys and values scattered over a pool whose other rows are NaN."""

    keys: torch.Tensor
    values: torch.Tensor
    req_to_token: torch.Tensor
    requests: torch.Tensor
    lengths: list[int]

    def of(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.req_to_token[self.requests[number], : self.lengths[number]].long()
        return self.keys[rows], self.values[rows]


def pool(lengths: list[int], kv_heads: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Pool:
    size = sum(lengths) + 7
    keys = torch.full((size, kv_heads, HEAD), math.nan, dtype=dtype)
    values = keys.clone()
    free = torch.randperm(size, generator=generator)
    # the table is larger than the batch, and its unused cells point to rows that are NaN
    req_to_token = free[-1].int().repeat(len(lengths) + 3, max(lengths) + 5)
    requests = torch.randperm(len(lengths) + 3, generator=generator)[: len(lengths)]
    taken = 0
    for request, length in zip(requests, lengths, strict=True):
        rows = free[taken : taken + length]
        req_to_token[request, :length] = rows.int()
        keys[rows] = torch.randn(length, kv_heads, HEAD, generator=generator).to(dtype)
        values[rows] = torch.randn(length, kv_heads, HEAD, generator=generator).to(dtype)
        taken += length
    return Pool(keys, values, req_to_token, requests, lengths)


def plain(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Attention of [m, H, D] over [L, K, D], written as it is defined; visible is [m, L]."""
    output = torch.empty_like(query)
    shared = query.shape[1] // keys.shape[1]
    for i in range(query.shape[0]):
        for head in range(query.shape[1]):
            seen = visible[i].nonzero().flatten()
            scores = torch.stack([query[i, head].double() @ keys[j, head // shared].double() * SCALE for j in seen])
            weights = (scores - scores.max()).exp()
            weights /= weights.sum()
            output[i, head] = sum(w * values[j, head // shared].double() for w, j in zip(weights, seen, strict=True))
    return output


def decode(pool: Pool, query, *, key=None, value=None, new_rows=None, **other):
    output = torch.full_like(query, math.nan)
    options = {"logit_cap": 0.0, "cross": False, "window": 0, "encoder": None, "sinks": None, "scales": (1.0, 1.0)}
    options |= other
    torch.ops.sgl_kernel.decode_attention_cpu(
        query,
        pool.keys,
        pool.values,
        *options["scales"],
        output,
        key,
        value,
        torch.zeros(len(query), dtype=torch.long) if new_rows is None else new_rows,
        torch.empty(0),
        pool.req_to_token,
        pool.requests,
        torch.tensor(pool.lengths),
        SCALE,
        options["logit_cap"],
        options["cross"],
        options["window"],
        options["encoder"],
        options["sinks"],
    )
    return output


def extend(pool: Pool, query, new: list[int], *, key=None, value=None, tree=None, causal=True, **other):
    output = torch.full_like(query, math.nan)
    options = {"logit_cap": 0.0, "cross": False, "window": 0, "encoder": None, "sinks": None} | other
    lengths = torch.tensor(new, dtype=torch.int32)
    torch.ops.sgl_kernel.extend_attention_cpu(
        query,
        key,
        value,
        output,
        pool.keys,
        pool.values,
        1.0,
        1.0,
        pool.req_to_token,
        pool.requests,
        torch.tensor(pool.lengths),
        lengths,
        (lengths.cumsum(0) - lengths).int(),
        max(new),
        SCALE,
        options["logit_cap"],
        options["cross"],
        options["window"],
        options["encoder"],
        options["sinks"],
        tree,
        causal,
    )
    return output


@pytest.fixture(autouse=True)
def loaded(kernels_on_path):
    import sgl_kernel  # noqa: F401


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_decoding_a_ragged_batch_attends_to_each_requests_own_rows(heads, kv_heads, seeded):
    requests = pool([1, 2, 3, 9, 30, 31, 32], kv_heads, seeded)
    query = torch.randn(7, heads, HEAD, generator=seeded)
    output = decode(requests, query)
    for number, length in enumerate(requests.lengths):
        expected = plain(query[number : number + 1], *requests.of(number), torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(output[number : number + 1], expected)


def test_decoding_stores_the_new_keys_and_values_before_it_reads(seeded):
    requests = pool([4, 11], 2, seeded)
    last = torch.tensor([requests.req_to_token[r, n - 1] for r, n in zip(requests.requests, [4, 11], strict=True)])
    before = requests.keys.clone()
    requests.keys[last.long()] = math.nan
    query, key, value = (torch.randn(2, n, HEAD, generator=seeded) for n in (6, 2, 2))
    # as the model hands them over: one row per token, heads side by side
    output = decode(requests, query, key=key.flatten(1), value=value.flatten(1), new_rows=last.long())
    torch.testing.assert_close(requests.keys[last.long()], key)
    others = torch.ones(len(before), dtype=torch.bool)
    others[last.long()] = False
    torch.testing.assert_close(requests.keys[others], before[others], equal_nan=True)
    for number, length in enumerate(requests.lengths):
        expected = plain(query[number : number + 1], *requests.of(number), torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(output[number : number + 1], expected)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("total", [1, 6, 17])
def test_every_prefix_length_gives_what_the_whole_prompt_gives(heads, kv_heads, total, seeded):
    """A cache hit of any length changes nothing: the last tokens come out as from a prefill of the whole."""
    requests = pool([total], kv_heads, seeded)
    query = torch.randn(total, heads, HEAD, generator=seeded)
    whole = plain(query, *requests.of(0), torch.ones(total, total, dtype=torch.bool).tril())
    for prefix in range(total):
        torch.testing.assert_close(extend(requests, query[prefix:], [total - prefix]), whole[prefix:])


@given(
    spans=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=6),
    heads=st.sampled_from(HEADS),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_any_mixture_of_prefixes_and_new_tokens_equals_the_loop(spans, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    new = [n for _, n in spans]
    requests = pool([p + n for p, n in spans], heads[1], generator)
    query = torch.randn(sum(new), heads[0], HEAD, generator=generator)
    output = extend(requests, query, new)
    for number, (part, out) in enumerate(zip(query.split(new), output.split(new), strict=True)):
        length = requests.lengths[number]
        visible = torch.ones(new[number], length, dtype=torch.bool).tril(length - new[number])
        torch.testing.assert_close(out, plain(part, *requests.of(number), visible))


def test_new_keys_and_values_come_from_the_call_where_they_are_given(seeded):
    """The pool may hold them in fewer bits, or not yet."""
    requests = pool([7, 5], 2, seeded)
    keys, values = (torch.cat([requests.of(n)[which][-3:] for n in (0, 1)]) for which in (0, 1))
    expected_pool = [requests.of(n) for n in (0, 1)]
    for number in (0, 1):
        rows = requests.req_to_token[requests.requests[number], : requests.lengths[number]][-3:].long()
        requests.keys[rows] = math.nan
        requests.values[rows] = math.nan
    query = torch.randn(6, 4, HEAD, generator=seeded)
    output = extend(requests, query, [3, 3], key=keys.flatten(1), value=values.flatten(1))
    for number, length in enumerate(requests.lengths):
        visible = torch.ones(3, length, dtype=torch.bool).tril(length - 3)
        part = slice(3 * number, 3 * number + 3)
        torch.testing.assert_close(output[part], plain(query[part], *expected_pool[number], visible))


@pytest.mark.parametrize("prefixes", [[0, 0], [5, 12], [1, 40, 3]])
def test_a_tree_mask_shows_each_node_the_prefix_and_its_ancestors(prefixes, seeded):
    nodes = 6
    parents = torch.tensor([-1, 0, 0, 1, 1, 3])
    mask = torch.eye(nodes, dtype=torch.bool)
    for node in range(1, nodes):
        mask[node] |= mask[parents[node]]
    other = torch.ones(nodes, nodes, dtype=torch.bool).tril()
    masks = [mask if number % 2 == 0 else other for number in range(len(prefixes))]
    requests = pool([p + nodes for p in prefixes], 2, seeded)
    query = torch.randn(nodes * len(prefixes), 6, HEAD, generator=seeded)
    output = extend(requests, query, [nodes] * len(prefixes), tree=torch.stack(masks).flatten())
    for number, prefix in enumerate(prefixes):
        visible = torch.cat([torch.ones(nodes, prefix, dtype=torch.bool), masks[number]], 1)
        part = slice(nodes * number, nodes * (number + 1))
        torch.testing.assert_close(output[part], plain(query[part], *requests.of(number), visible))


def test_a_chain_as_a_tree_is_causal_attention(seeded):
    requests = pool([9, 14], 2, seeded)
    query = torch.randn(8, 4, HEAD, generator=seeded)
    chain = torch.ones(2, 4, 4, dtype=torch.bool).tril().flatten()
    torch.testing.assert_close(extend(requests, query, [4, 4], tree=chain), extend(requests, query, [4, 4]))


def test_not_causal_means_that_all_is_visible(seeded):
    requests = pool([6], 2, seeded)
    query = torch.randn(4, 4, HEAD, generator=seeded)
    expected = plain(query, *requests.of(0), torch.ones(4, 6, dtype=torch.bool))
    torch.testing.assert_close(extend(requests, query, [4], causal=False), expected)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_cache_in_fp8_is_read_with_its_scales(kind, seeded):
    requests = pool([5, 12], 2, seeded)
    keys, values = requests.keys.to(kind), requests.values.to(kind)
    stored = Pool(keys, values, requests.req_to_token, requests.requests, requests.lengths)
    exact = Pool(keys.float() * 0.5, values.float() * 2.0, requests.req_to_token, requests.requests, requests.lengths)
    query = torch.randn(2, 6, HEAD, generator=seeded)
    torch.testing.assert_close(decode(stored, query, scales=(0.5, 2.0)), decode(exact, query))


def test_bf16_differs_from_exact_only_by_its_rounding(seeded):
    requests = pool([3, 20], 2, seeded, torch.bfloat16)
    query = torch.randn(2, 6, HEAD, generator=seeded).bfloat16()
    output = decode(requests, query)
    for number, length in enumerate(requests.lengths):
        keys, values = requests.of(number)
        visible = torch.ones(1, length, dtype=torch.bool)
        expected = plain(query[number : number + 1].float(), keys.float(), values.float(), visible)
        torch.testing.assert_close(output[number : number + 1].float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"logit_cap": 30.0}, "a cap on logits"),
        ({"cross": True}, "cross attention"),
        ({"window": 128}, "a sliding window"),
        ({"encoder": torch.tensor([3])}, "an encoder"),
        ({"sinks": torch.ones(4)}, "attention sinks"),
    ],
)
def test_a_variant_that_is_not_there_is_refused_by_name(option, words, seeded):
    requests = pool([4], 2, seeded)
    query = torch.randn(1, 4, HEAD, generator=seeded)
    with pytest.raises(NotImplementedError, match=f"decode_attention_cpu .* {words}"):
        decode(requests, query, **option)
    with pytest.raises(NotImplementedError, match=f"extend_attention_cpu .* {words}"):
        extend(requests, query, [1], **option)
