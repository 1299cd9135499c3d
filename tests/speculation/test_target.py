"""The lean model is the model: transformers' logits, whatever the cache went through."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.errors import LabsError
from labs_helpers.model.prompts import chat_prompts, chat_token_ids
from labs_helpers.model.spec import shipped_dir
from labs_helpers.speculation import Target, Tree
from tests.speculation.test_tree import trees
from tests.speculation.tiny import SPEC, tiny_target

TINY = tiny_target()
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def shipped():
    return Target.load()


def test_logits_are_transformers_own(shipped):
    from labs_helpers.model.scoring import load_model

    model = load_model(shipped_dir())
    for text in chat_prompts(3):
        ids = chat_token_ids([("user", text)])
        with torch.inference_mode():
            wanted = model(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(shipped.prefill(ids, all_rows=True).output.logits, wanted, **CLOSE)
        torch.testing.assert_close(shipped.prefill(ids).logits, wanted[-1], **CLOSE)


def test_taps_are_the_inputs_of_layers(shipped):
    from labs_helpers.model.scoring import load_model

    ids = chat_token_ids([("user", "What is prefill?")])
    with torch.inference_mode():
        states = load_model(shipped_dir())(torch.tensor([ids]), output_hidden_states=True).hidden_states
        found = shipped.prefill(ids, (2, 5, 9))
    torch.testing.assert_close(found.output.taps, torch.cat([states[i][0] for i in (2, 5, 9)], 1), **CLOSE)
    torch.testing.assert_close(found.hidden, states[-1][0, -1], **CLOSE)


@settings(max_examples=25, deadline=None)
@given(trees(), st.lists(st.integers(0, SPEC.vocabulary - 1), min_size=1, max_size=20), st.randoms())
def test_every_node_of_a_tree_gets_the_logits_of_its_own_path(tree, prompt, rng):
    tokens = [rng.randrange(SPEC.vocabulary) for _ in range(len(tree))]
    state = TINY.prefill(prompt)
    with torch.inference_mode():
        found = TINY.step(tokens, state.length, tree).logits
    assert torch.equal(found, TINY.verify(state, tokens, tree.depths, tree.mask)) or torch.allclose(
        found, TINY.verify(state, tokens, tree.depths, tree.mask), **CLOSE
    )
    for node, path in enumerate(tree.paths):
        alone = TINY.prefill([*prompt, *(tokens[n] for n in path)]).logits
        torch.testing.assert_close(found[node], alone, **CLOSE)


@settings(max_examples=25, deadline=None)
@given(trees(), st.lists(st.integers(0, SPEC.vocabulary - 1), min_size=1, max_size=20), st.data())
def test_a_compacted_cache_is_a_recomputed_one(tree, prompt, data):
    """Several rounds of a tree and a kept path each; then one step says what a fresh prefill says."""
    text = list(prompt)
    past = TINY.prefill(prompt).length
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    with torch.inference_mode():
        for _ in range(2):
            tokens = [rng.randrange(SPEC.vocabulary) for _ in range(len(tree))]
            TINY.step(tokens, past, tree)
            path = data.draw(st.sampled_from(tree.paths))
            past = TINY.keep(past, path)
            text += [tokens[node] for node in path]
        found = TINY.step([3], past, Tree.chain(0)).logits[0]
        rows = TINY.cache[:, :past].clone()
    assert past == len(text)
    torch.testing.assert_close(found, TINY.prefill([*text, 3]).logits, **CLOSE)
    torch.testing.assert_close(rows, TINY.cache[:, :past], **CLOSE)


def test_verify_by_hand_leaves_the_state(shipped):
    ids = chat_token_ids([("user", "What is decode?")])
    state = shipped.prefill(ids)
    first = shipped.verify(state, [5, 6, 7], [0, 1, 1], [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    again = shipped.verify(state, [5, 6, 7], [0, 1, 1], [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    assert torch.equal(first, again) and state.length == len(ids)


def test_bf16_is_near_fp32(shipped):
    ids = chat_token_ids([("user", "What is a block?")])
    wide, narrow = shipped.prefill(ids).logits, Target.load("bf16").prefill(ids).logits
    assert 1e-4 < (wide - narrow).abs().max() < 1.0
    assert Target.load("bf16").weight_bytes * 2 == shipped.weight_bytes


def test_what_does_not_fit_is_refused(shipped, tmp_path):
    with pytest.raises(LabsError):
        shipped.prefill([])
    with pytest.raises(LabsError):
        shipped.prefill([5] * 3000)
    with pytest.raises(LabsError, match="no Llama"):
        Target.load(folder=tmp_path)
    with pytest.raises(LabsError, match="int4"):
        Target.load("int4")


def test_torch_keeps_its_own_number_of_threads(shipped):
    before = torch.get_num_threads()
    with shipped.running():
        assert torch.get_num_threads() == shipped.threads == 1
    with pytest.raises(ValueError), shipped.running():
        raise ValueError
    assert torch.get_num_threads() == before


def test_what_a_state_shows_may_be_learned_from(shipped):
    hidden = shipped.prefill(chat_token_ids([("user", "What is decode?")])).hidden
    head = torch.nn.Linear(len(hidden), 2)
    head(hidden).sum().backward()
    assert head.weight.grad is not None
