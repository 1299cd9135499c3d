"""The fused draft layer is the module that was trained, in a chain, in a tree, and after rows were written anew."""

import pytest
import torch
from torch.nn import functional

from labs_helpers.speculation import Target
from labs_helpers.speculation.drafter import Sampling
from labs_helpers.speculation.eagle3_draft import Eagle3Draft
from labs_helpers.speculation.eagle_draft import EagleDraft
from labs_helpers.speculation.eagle_drafter import Eagle
from labs_helpers.speculation.eagle_runtime import eagle3_layer, eagle_layer
from labs_helpers.speculation.features import TAPS, rotations
from tests.speculation.test_loop import prompts, random_weights

CLOSE = {"atol": 2e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def target():
    return Target.load()


def drafts(target):
    first, third = random_weights(EagleDraft()), random_weights(Eagle3Draft(torch.arange(3, 1027)))
    return {
        "eagle": (first, eagle_layer(first, target, "fp32")),
        "eagle3": (third, eagle3_layer(third, target, TAPS, "fp32")),
    }


def features(draft, state):
    return draft.fc(state.output.taps) if isinstance(draft, Eagle3Draft) else state.output.hidden


def logits_of(draft, target, output):
    return draft.logits(output) if isinstance(draft, Eagle3Draft) else functional.linear(output, target.embedding)


def whole(draft, target, tokens, feature):
    """The module over a whole sequence: row t reads feature t and the embedding of tokens[t]."""
    n = len(tokens)
    cos, sin = (table[None, :n] for table in rotations(n, target.spec.head_dim, target.spec.rope_theta))
    x, residual = draft.enter(target.embedding[torch.tensor(tokens)][None], feature[None])
    q, k, v = draft.layer.self_attn.project(x, cos, sin)
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return draft.layer.finish(residual, attended)[0]


@pytest.mark.parametrize("name", ["eagle", "eagle3"])
def test_the_fused_layer_is_the_module(target, name):
    draft, layer = drafts(target)[name]
    ids = prompts()[0]
    with torch.inference_mode():
        state = target.prefill(ids, TAPS, all_rows=True)
        tokens = [*ids[1:], 5]
        wanted = whole(draft, target, tokens, features(draft, state))
        turns = target.rotation.turns[: len(ids)]
        found, logits = layer.run(layer.features(state.output), layer.table[torch.tensor(tokens)], 0, turns)
        torch.testing.assert_close(found, wanted, **CLOSE)
        torch.testing.assert_close(logits, logits_of(draft, target, wanted), **CLOSE)
        last, _ = layer.run(
            layer.features(state.output), layer.table[torch.tensor(tokens)], 0, turns, None, last_row=True
        )
        torch.testing.assert_close(last[0], wanted[-1], **CLOSE)


@pytest.mark.parametrize("name", ["eagle", "eagle3"])
@pytest.mark.parametrize("shape", [(4, 1, None, None), (3, 2, 6, None), (3, 2, 5, 1)])
def test_a_draft_is_what_the_module_says_step_by_step(target, name, shape):
    """Chain and tree: each drafted node's token is among the module's best after its path, fed with its own outputs."""
    draft, layer = drafts(target)[name]
    depth, topk, nodes, expand = shape
    drafter = Eagle(name, target, layer, depth, topk, nodes, 0.0, expand)
    ids = prompts()[1]
    with torch.inference_mode():
        state = target.prefill(ids, drafter.taps, all_rows=drafter.all_rows)
        first = int(state.logits.argmax())
        drafter.begin(target, ids, state.output, first, Sampling(0.0, torch.Generator()))
        drafted = drafter.draft(99)
        tokens = (first, *drafted.tokens)
        # a second round, after the path to the deepest node was accepted
        deepest = drafted.tree.depths.index(drafted.tree.depth)
        path = drafted.tree.paths[deepest]
        output = target.step(tokens, state.length, drafted.tree, drafter.taps)
        drafter.accept(output, path, [tokens[n] for n in path[1:]] + [9])
        again = drafter.draft(99)
        for start, found in ((ids, drafted), ([*ids, *(tokens[n] for n in path)], again)):
            true = target.prefill(start, TAPS, all_rows=True)
            after = first if start is ids else 9
            for path_of in found.tree.paths[1:]:
                written, feature = [*start[1:], after], features(draft, true)
                for node in path_of[1:]:
                    output_rows = whole(draft, target, written, feature)
                    best = logits_of(draft, target, output_rows[-1]).topk(topk).indices
                    token = found.tokens[node - 1]
                    assert token in (layer.ids[best]).tolist()
                    written, feature = [*written, token], torch.cat([feature, output_rows[-1:]])


def test_int8_is_near_fp32(target):
    draft, layer = drafts(target)["eagle3"]
    rough = eagle3_layer(draft, target, TAPS, "int8")
    assert rough.weight_bytes * 4 == layer.weight_bytes
    ids = prompts()[0]
    with torch.inference_mode():
        state = target.prefill(ids, TAPS)
        turns, table = target.rotation.turns[: len(ids)], layer.table[torch.tensor(ids)]
        a, _ = layer.run(layer.features(state.output), table, 0, turns)
        b, _ = rough.run(rough.features(state.output), table, 0, turns)
    assert 0 < (a - b).norm() / a.norm() < 0.1
