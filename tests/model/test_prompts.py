"""Prompt sets: exact lengths, the same for the same seed, unique where they must be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.errors import LabsError
from labs_helpers.model.corpus import FULL_MIX, documents
from labs_helpers.model.prompts import (
    OFF_DOMAIN,
    SHORTEST_PREFILL,
    chat_prompts,
    chat_token_ids,
    long_document,
    prefill_prompt,
    prompts_by_class,
)
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import TURN_END, TURN_START, fast_tokenizer


@given(n=st.integers(SHORTEST_PREFILL, 1500), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_a_prefill_prompt_has_exactly_the_length_asked_for(n: int, seed: int) -> None:
    ids = prefill_prompt(n, seed)
    assert len(ids) == n
    text = fast_tokenizer(shipped_dir()).decode(ids, skip_special_tokens=False)
    assert text.startswith(f"{TURN_START}user\n") and text.endswith(f"{TURN_END}\n{TURN_START}assistant\n")


def test_prefill_prompts_share_no_more_than_the_opening() -> None:
    prompts = [prefill_prompt(256, seed) for seed in range(40)]
    starts = {tuple(p[:16]) for p in prompts}
    assert len(starts) == len(prompts)
    assert prefill_prompt(256, 7) == prompts[7]


def test_too_short_a_prefill_is_refused() -> None:
    with pytest.raises(LabsError, match="48"):
        prefill_prompt(47)


def test_chat_prompts_are_different_and_deterministic() -> None:
    prompts = chat_prompts(64, seed=3)
    assert len(set(prompts)) == 64
    assert prompts == chat_prompts(64, seed=3) != chat_prompts(64, seed=4)


@pytest.mark.parametrize("kind", ["seen-like", "slot-bearing", "off-domain"])
def test_classes_are_held_out(kind: str) -> None:
    prompts = prompts_by_class(kind, 20)  # type: ignore[arg-type]
    assert len(set(prompts)) == 20
    stream = documents(0, FULL_MIX)
    trained = {next(stream).prompt for _ in range(3000)}
    assert not trained & set(prompts)


def test_more_than_there_is_and_unknown_classes_are_refused() -> None:
    with pytest.raises(LabsError, match="off-domain"):
        prompts_by_class("off-domain", len(OFF_DOMAIN) + 1)
    with pytest.raises(LabsError, match="unknown prompt class"):
        prompts_by_class("poems", 1)  # type: ignore[arg-type]


def test_long_documents_reach_their_length() -> None:
    tokenizer = fast_tokenizer(shipped_dir())
    for n in (200, 1000, 3000):
        assert n <= len(tokenizer.encode(long_document(n, seed=1)).ids) < 2.2 * n + 300


def test_chat_token_ids_end_where_the_model_answers() -> None:
    text = fast_tokenizer(shipped_dir()).decode(chat_token_ids([("user", "Hello")]), skip_special_tokens=False)
    assert text == f"{TURN_START}user\nHello{TURN_END}\n{TURN_START}assistant\n"
