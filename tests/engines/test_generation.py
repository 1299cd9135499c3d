"""Text comes out whole whatever way the tokens cut it, and sampling does what the request says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.engines.generation import Request, TextStream, generate


def bytes_to_text(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes: every character beyond ASCII is cut into several tokens."""
    return bytes(ids).decode(errors="replace")


def stream(ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[str], TextStream]:
    out = TextStream(bytes_to_text, stop)
    return [*(out.push(i) for i in ids), out.flush()], out


@given(st.text())
def test_the_pieces_are_the_text(text):
    pieces, _ = stream(text.encode())
    assert "".join(pieces) == text


@given(st.text(alphabet="aé€😀"))
def test_no_piece_holds_half_a_character(text):
    pieces, _ = stream(text.encode())
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.binary())
def test_bytes_that_are_no_text_come_out_as_the_decoder_shows_them(data):
    pieces, _ = stream(data)
    assert "".join(pieces) == bytes_to_text(data)


def test_ascii_is_not_held_back():
    pieces, _ = stream(b"abc")
    assert pieces == ["a", "b", "c", ""]


@given(st.text(alphabet="abc", max_size=30), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text, stop):
    out, pieces = TextStream(bytes_to_text, stop), []
    for token in text.encode():
        pieces.append(out.push(token))
        if out.stopped:
            break
    pieces.append(out.flush())
    said = "".join(pieces)
    assert text.startswith(said)
    assert not any(s in said for s in stop)
    assert out.stopped == any(s in text for s in stop)
    if not out.stopped:
        assert said == text


def test_the_beginning_of_a_stop_string_is_held_until_it_is_none():
    out = TextStream(bytes_to_text, ["END"])
    assert [out.push(t) for t in b"xENx"] == ["x", "", "", "ENx"]


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # for a model this small a second thread only waits for the first
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def tokens(model, request: Request, end_ids=frozenset()) -> tuple[list[str], str | None]:
    pieces = list(generate(model, lambda ids: "".join(f"<{i}>" for i in ids), request, frozenset(end_ids)))
    assert [piece.tokens for piece in pieces] == list(range(1, len(pieces) + 1))
    return "".join(p.text for p in pieces).replace("><", "> <").split(), pieces[-1].finish


def test_greedy_is_the_argmax_of_the_whole_sequence_at_every_step(model):
    """The KV cache must not change anything: compare with forward passes over everything so far."""
    import torch

    said, finish = tokens(model, Request(prompt=(1, 2, 3), max_tokens=12, temperature=0))
    ids = [1, 2, 3]
    for _ in range(12):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert said == [f"<{i}>" for i in ids[3:]]
    assert finish == "length"


def test_an_end_token_ends_the_answer_unless_it_is_ignored(model):
    said, _ = tokens(model, Request(prompt=(1, 2, 3), max_tokens=6, temperature=0))
    third = int(said[2].strip("<>"))
    first = [int(s.strip("<>")) for s in said].index(third)
    assert tokens(model, Request((1, 2, 3), 6, temperature=0), {third}) == (said[:first], "stop")
    assert tokens(model, Request((1, 2, 3), 6, temperature=0, ignore_eos=True), {third}) == (said, "length")


def test_a_seed_fixes_the_sample_and_another_changes_it(model):
    def sample(seed: int) -> list[str]:
        return tokens(model, Request((1, 2, 3), 20, temperature=5.0, seed=seed))[0]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_only_the_first_step_is_prefill(model):
    pieces = list(generate(model, bytes_to_text, Request((1, 2, 3), 3, temperature=0), frozenset()))
    assert [p.prefill_s > 0 for p in pieces] == [True, False, False]
    assert [p.decode_s > 0 for p in pieces] == [False, True, True]


def test_a_cancelled_answer_ends_before_its_next_step(model):
    asked = iter([False, False, True])
    pieces = list(generate(model, bytes_to_text, Request((1,), 9, temperature=0), frozenset(), lambda: next(asked)))
    assert len(pieces) == 2
