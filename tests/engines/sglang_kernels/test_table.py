"""Row numbers move as a loop over requests would move them; copies of KV rows act as if all were read first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=6)
WIDTH = 40


def batch(spans: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A table of numbers that are all different, the requests in an order of their own, and their spans."""
    table = torch.arange((len(spans) + 2) * WIDTH, dtype=torch.int32).view(-1, WIDTH)
    requests = torch.arange(len(spans)).flip(0) + 1
    start = torch.tensor([s for s, _ in spans])
    return table, requests, start, start + torch.tensor([n for _, n in spans])


@given(SPANS)
@settings(max_examples=60, deadline=None)
def test_rows_are_written_to_each_requests_span_and_nowhere_else(spans):
    import sgl_kernel

    table, requests, start, end = batch(spans)
    expected, total = table.clone(), sum(n for _, n in spans)
    rows = 10_000 + torch.arange(total + 3)
    taken = 0
    for request, (begin, count) in zip(requests.tolist(), spans, strict=True):
        expected[request, begin : begin + count] = rows[taken : taken + count].int()
        taken += count
    sgl_kernel.assign_req_to_token_pool_cpu(requests, table, start, end, rows, WIDTH)
    assert torch.equal(table, expected)


@given(SPANS)
@settings(max_examples=60, deadline=None)
def test_rows_are_read_packed_and_writing_them_back_changes_nothing(spans):
    import sgl_kernel

    table, requests, start, end = batch(spans)
    total = sum(n for _, n in spans)
    rows = torch.full((total + 2,), -7)
    sgl_kernel.assign_extend_cache_locs_cpu(requests, table, start.int(), end.int(), rows, WIDTH)
    expected = [table[r, s : s + n] for r, (s, n) in zip(requests.tolist(), spans, strict=True)]
    assert rows.tolist() == [*torch.cat(expected).tolist(), -7, -7], "what lies behind stays"
    before = table.clone()
    sgl_kernel.assign_req_to_token_pool_cpu(requests, table, start, end, rows, WIDTH)
    assert torch.equal(table, before)


@pytest.mark.parametrize(("topk", "steps"), [(1, 1), (1, 4), (3, 2)])
def test_a_draft_gets_the_rows_behind_its_request(topk, steps):
    import sgl_kernel

    table, requests, seq_lens, _ = batch([(5, 0), (0, 0), (11, 0)])
    rows = torch.zeros(3 * topk * steps, dtype=torch.long)
    sgl_kernel.assign_draft_cache_locs_contiguous_cpu(requests, table, seq_lens, rows, WIDTH, topk, steps)
    expected = [table[r, n : n + topk * steps] for r, n in zip(requests.tolist(), seq_lens.tolist(), strict=True)]
    assert rows.tolist() == torch.cat(expected).tolist()


@pytest.mark.parametrize(("topk", "steps"), [(1, 3), (2, 4), (4, 2)])
def test_every_branch_of_a_draft_sees_the_prefix_and_its_own_rows(topk, steps):
    import sgl_kernel

    table, requests, seq_lens, _ = batch([(5, 0), (0, 0), (20, 0)])
    drafts = sgl_kernel.build_draft_decode_metadata_cpu(table, requests, seq_lens, topk, steps, WIDTH)
    assert drafts.shape == (3 * topk, WIDTH)
    for number, (request, length) in enumerate(zip(requests.tolist(), seq_lens.tolist(), strict=True)):
        for branch in range(topk):
            own = length + branch * steps
            expected = torch.cat([table[request, :length], table[request, own : own + steps]])
            assert torch.equal(drafts[number * topk + branch, : length + steps], expected)


@given(st.lists(st.integers(0, 11), min_size=0, max_size=12), st.permutations(range(12)))
@settings(max_examples=60, deadline=None)
def test_kv_rows_are_copied_in_all_layers_as_if_all_were_read_first(sources, order):
    """Sources and targets overlap, as they do when accepted drafts move to the front."""
    import sgl_kernel

    pools = [torch.rand(12, 2, 3), torch.rand(12, 2, 5).bfloat16(), torch.randint(0, 255, (12, 7), dtype=torch.uint8)]
    targets = torch.tensor(order[: len(sources)], dtype=torch.long)
    source = torch.tensor(sources, dtype=torch.long)
    expected = [pool.clone() for pool in pools]
    for new, old in zip(expected, pools, strict=True):
        new[targets] = old[source]
    sgl_kernel.copy_all_layer_kv_cache_cpu(
        torch.tensor([pool.data_ptr() for pool in pools], dtype=torch.uint64),
        torch.tensor([pool[0].nbytes for pool in pools]),
        targets,
        source,
    )
    assert all(torch.equal(new, old) for new, old in zip(expected, pools, strict=True))
