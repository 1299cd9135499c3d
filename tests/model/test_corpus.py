"""The corpus is deterministic, its two sides never meet, and it does not teach what the course corrects."""

from __future__ import annotations

import json
import random
import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.model.corpus import FULL_MIX, GENERATORS, RECALLED_KINDS, document, documents, long_documents
from labs_helpers.model.corpus_slots import Slots, is_held_out

ENOUGH = 3000


def test_same_seed_same_documents() -> None:
    assert list(islice(documents(3, FULL_MIX), 300)) == list(islice(documents(3, FULL_MIX), 300))
    assert list(islice(documents(3, FULL_MIX), 300)) != list(islice(documents(4, FULL_MIX), 300))


def test_no_prompt_is_on_both_sides() -> None:
    trained = {d.prompt for d in islice(documents(0, FULL_MIX), ENOUGH)}
    kept = {d.prompt for d in islice(documents(0, FULL_MIX, held_out=True), ENOUGH)}
    assert not trained & kept


def test_prompts_with_slots_come_once() -> None:
    prompts = [d.prompt for d in islice(documents(0, FULL_MIX), ENOUGH) if d.kind not in RECALLED_KINDS]
    assert len(prompts) == len(set(prompts))


@given(seed=st.integers(0, 10_000), held_out=st.booleans())
@settings(max_examples=60, deadline=None)
def test_values_stay_on_their_side(seed: int, held_out: bool) -> None:
    slots = Slots(random.Random(seed), held_out)
    for draw in (slots.word, slots.port, slots.code):
        assert is_held_out(draw()) == held_out


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_every_kind_is_a_conversation_that_ends_with_an_answer(kind: str) -> None:
    slots = Slots(random.Random(1))
    for _ in range(20):
        turns = document(slots, kind).turns
        roles = [role for role, _ in turns if role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(text.strip() for _, text in turns)


def test_json_answers_parse_and_hold_the_values_of_the_prompt() -> None:
    slots = Slots(random.Random(2))
    for _ in range(50):
        made = document(slots, "fill_json")
        for value in json.loads(made.turns[-1][1]).values():
            assert str(value) in made.prompt or str(value).rstrip("0").rstrip(".") in made.prompt


def test_lookup_answers_stand_in_the_prompt() -> None:
    slots = Slots(random.Random(5))
    for _ in range(50):
        turns = document(slots, "lookup").turns
        listing = next(text for role, text in turns if role == "user")
        for role, text in turns:
            if role == "assistant":
                assert text.rstrip(".").split()[-1] in listing


def test_long_documents_are_long() -> None:
    for made in islice(long_documents(0, FULL_MIX, 3000), 5):
        assert sum(len(text) for _, text in made.turns) > 3000 * 2.5


@pytest.mark.parametrize(
    "wrong",
    [
        r"Qwen3-8B-Instruct",
        r"--enforce-eager",
        r"api_server",
        r"commands\.build",
        r"trtllm-build",
        r"add_medusa_heads",
        r"without training",
        r"ipc=host",
    ],
)
def test_the_corrected_claims_are_not_taught(wrong: str) -> None:
    text = "\n".join(t for d in islice(documents(0, FULL_MIX), ENOUGH) for _, t in d.turns)
    assert not re.search(wrong, text)
