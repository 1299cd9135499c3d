"""Packing loses no token, keeps documents apart and puts the loss on the answers."""

from __future__ import annotations

from itertools import islice

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.model.corpus import FULL_MIX, documents
from labs_helpers.model.packing import Encoded, encode, long_batch, pack, packed_batch, with_gaps
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import TURN_END, fast_tokenizer


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=200))
@settings(deadline=None)
def test_rows_fit_and_no_document_comes_twice(sizes: list[int]) -> None:
    made = [Encoded((i,) * n, (1.0,) * n) for i, n in enumerate(sizes)]
    rows = list(pack(made, 32))
    assert all(sum(len(d.ids) for d in row) <= 32 for row in rows)
    placed = [d.ids[0] for row in rows for d in row]
    assert len(placed) == len(set(placed))


def test_a_document_sees_itself_only() -> None:
    row = [Encoded((5, 6, 7), (0.1, 0.1, 1.0)), Encoded((8, 9), (0.1, 1.0))]
    batch = packed_batch([row], 6)
    assert batch.mask is not None
    seen = batch.mask[0, 0] == 0
    assert seen[:5, :5].tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [False, False, False, True, False],
        [False, False, False, True, True],
    ]
    assert batch.positions[0, :5].tolist() == [0, 1, 2, 0, 1]
    assert batch.weights[0].tolist() == [0.0, torch.tensor(0.1).item(), 1.0, 0.0, 1.0, 0.0]


@given(sizes=st.lists(st.integers(2, 40), min_size=1, max_size=50), seed=st.integers(0, 9))
@settings(deadline=None)
def test_a_jump_moves_the_later_part_back_and_changes_nothing_else(sizes: list[int], seed: int) -> None:
    made = [Encoded((i,) * n, (1.0,) * n) for i, n in enumerate(sizes)]
    for before, after in zip(made, with_gaps(made, 128, 1.0, seed), strict=True):
        batch = packed_batch([[after]], len(after.ids))
        places = batch.positions[0].tolist()
        jump = after.gap_at
        assert batch.ids[0].tolist() == list(before.ids) and after.weights == before.weights
        assert places[:jump] == list(range(jump)) and 0 < jump < len(places)
        assert places[jump:] == list(range(places[jump], places[jump] + len(places) - jump))
        assert jump < places[jump] and places[-1] < 128
    assert list(with_gaps(made, 128, 0.0, seed)) == made


def test_a_long_row_is_cut_and_padded_without_weight() -> None:
    batch = long_batch([Encoded((1, 2, 3), (1.0, 1.0, 1.0)), Encoded(tuple(range(9)), (1.0,) * 9)], 5)
    assert batch.mask is None
    assert batch.ids.tolist() == [[1, 2, 3, 0, 0], [0, 1, 2, 3, 4]]
    assert batch.weights.tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 1]]


def test_full_weight_lies_on_answers_and_their_end() -> None:
    tokenizer = fast_tokenizer(shipped_dir())
    for document in islice(documents(2, FULL_MIX), 50):
        encoded = encode(tokenizer, document)
        weighted = [i for i, w in zip(encoded.ids, encoded.weights, strict=True) if w == 1.0]
        answers = "".join(text + TURN_END for role, text in document.turns if role == "assistant")
        assert tokenizer.decode(weighted, skip_special_tokens=False) == answers
