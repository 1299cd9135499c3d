"""Whatever is drafted, greedy text is the model's own; sampled text has the model's distribution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers import speculation
from labs_helpers.errors import LabsError
from labs_helpers.model.prompts import chat_prompts, chat_token_ids, prompts_by_class
from labs_helpers.speculation import Tree, generate
from labs_helpers.speculation.eagle3_draft import Eagle3Draft
from labs_helpers.speculation.eagle_draft import EagleDraft
from labs_helpers.speculation.lookup import continuation
from labs_helpers.speculation.medusa_heads import MedusaHeads
from tests.speculation.tiny import SPEC, Oracle, tiny_target

TINY = tiny_target(5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(3, SPEC.vocabulary - 1), min_size=1, max_size=12),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.integers(1, 40),
)
def test_greedy_text_is_plain_text_whatever_is_drafted(prompt, seed, right, limit):
    plain = generate(TINY, prompt, max_new_tokens=limit)
    found = generate(TINY, prompt, Oracle(plain.ids, seed, right), max_new_tokens=limit)
    assert found.ids == plain.ids
    assert len(found.ids) <= found.rounds + 1 + sum(found.accepted)
    assert sum(stood for stood, _ in found.position_counts) == sum(found.accepted)
    assert plain.acceptance_length == 1.0


def random_weights(module, seed=0):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return module


@pytest.fixture(scope="module")
def target():
    return speculation.Target.load()


def prompts():
    texts = [*chat_prompts(1, seed=3), *prompts_by_class("seen-like", 1)]
    return [chat_token_ids([("user", text)]) for text in texts]


def drafters(target, folder):
    heads = MedusaHeads(torch.arange(1, 1151), heads=4, layers=2, shared=True)
    heads.start_from(target.embedding)
    own = random_weights(MedusaHeads(torch.arange(3, 900), heads=3, layers=1))
    eagle3 = random_weights(Eagle3Draft(torch.arange(3, 1027)))
    first = random_weights(EagleDraft())
    broad = [[0], [1], [2], [0, 0], [0, 1], [1, 0], [1, 0, 0]]
    return {
        "prompt lookup": speculation.prompt_lookup(),
        "draft model": speculation.draft_model(target, 3, folder),
        "medusa chain": speculation.medusa(target, heads=heads, nodes=4),
        "medusa tree": speculation.medusa(target, heads=heads, tree=broad),
        "medusa tree that grows": speculation.medusa(target, heads=heads, nodes=4, grows=True),
        "medusa, heads with their own outputs": speculation.medusa(target, heads=own, tree=broad, kind="fp32"),
        "eagle": speculation.eagle(target, draft=first),
        "eagle3 chain": speculation.eagle3(target, draft=eagle3),
        "eagle3 chain while confident": speculation.eagle3(target, draft=eagle3, confident=0.2, kind="fp32"),
        "eagle3 chain with siblings": speculation.eagle3(
            target, topk=3, nodes=5, expand=1, confident=0.1, draft=eagle3
        ),
        "eagle3 tree": speculation.eagle3(target, depth=3, topk=3, nodes=8, draft=eagle3),
    }


@pytest.fixture(scope="module")
def small_llama(tmp_path_factory):
    from labs_helpers.model.architecture import Architecture
    from labs_helpers.model.checkpoint import write_model
    from tests.speculation.tiny import tensors

    spec = Architecture(hidden=64, layers=2, feed_forward=96, heads=2, kv_heads=1, head_dim=32)
    folder = tmp_path_factory.mktemp("draft")
    write_model(tensors(1, spec), "fp32", folder, spec)
    return folder


def test_every_drafter_with_random_weights_leaves_the_text(target, small_llama):
    plain = [generate(target, ids, max_new_tokens=10).ids for ids in prompts()]
    for name, drafter in drafters(target, small_llama).items():
        for ids, answer in zip(prompts(), plain, strict=True):
            assert generate(target, ids, drafter, max_new_tokens=10).ids == answer, name


def test_every_drafter_draws(target, small_llama):
    ids = prompts()[0]
    for name, drafter in drafters(target, small_llama).items():
        first = generate(target, ids, drafter, max_new_tokens=8, temperature=0.8, seed=4)
        assert first.ids == generate(target, ids, drafter, max_new_tokens=8, temperature=0.8, seed=4).ids, name


def test_the_target_as_its_own_draft_is_always_right(target):
    from labs_helpers.model.spec import shipped_dir

    found = generate(target, prompts()[1], speculation.draft_model(target, 5, shipped_dir(), kind="fp32"))
    assert found.rounds > 2 and all(stood == tried for stood, tried in found.position_counts)


def test_sampling_with_a_drafter_has_the_plain_distribution():
    """The second token of many sampled answers, with a draft that knows the greedy answer and draws nothing."""
    prompt = [7, 11, 5]
    greedy = generate(TINY, prompt, max_new_tokens=4).ids
    counted = {}
    for name, drafter in (("plain", None), ("oracle", Oracle(greedy, 0, 0.9))):
        start = 10**6 * (drafter is None)
        drawn = [
            generate(TINY, prompt, drafter, max_new_tokens=2, temperature=3.0, seed=seed).ids
            for seed in range(start, start + 500)
        ]
        firsts = [ids[0] for ids in drawn]
        common = max(set(firsts), key=firsts.count)
        seconds = [ids[1] for ids in drawn if len(ids) > 1]
        counted[name] = (common, torch.bincount(torch.tensor(seconds), minlength=SPEC.vocabulary).double())
    plain, oracle = counted["plain"][1], counted["oracle"][1]
    frequent = plain + oracle >= 10
    a, b = plain[frequent] / plain.sum(), oracle[frequent] / oracle.sum()
    pooled = (plain + oracle)[frequent] / (plain.sum() + oracle.sum())
    chi = float(((a - b) ** 2 / (pooled * (1 / plain.sum() + 1 / oracle.sum()))).sum())
    degrees = int(frequent.sum())
    assert degrees > 5
    assert chi < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations; seeded


def test_typical_acceptance_is_for_temperatures_only(target):
    with pytest.raises(LabsError, match="temperature"):
        generate(target, [5], acceptance="typical")


def test_an_answer_that_does_not_fit_is_refused(target):
    with pytest.raises(LabsError, match="do not fit"):
        generate(target, [5] * 2000, max_new_tokens=100)


def test_the_latest_place_is_looked_up():
    ids = [1, 2, 3, 9, 9, 1, 2, 3, 7, 8, 1, 2, 3]
    assert continuation(ids, 3, 2) == (7, 8)
    assert continuation(ids, 3, 9) == (7, 8, 1, 2, 3)
    assert continuation([4, 5, 6], 3, 2) == ()
    assert continuation([5, 6, 5], 3, 2) == (6, 5)
    assert continuation([5, 6, 5], 3, 2, smallest=2) == ()


def test_a_tree_without_ranks_is_no_medusa_tree(target):
    heads = MedusaHeads(torch.arange(100), heads=2)
    with pytest.raises(LabsError):
        speculation.medusa(target, heads=heads, tree=Tree((-1, 0)))
    with pytest.raises(LabsError):
        speculation.medusa(target, heads=heads, tree=[[0], [0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"topk": 3}, {"topk": 3, "nodes": 0}, {"depth": 9, "topk": 8, "nodes": 9}]
)
def test_a_draft_that_cannot_be_is_refused(target, wrong):
    with pytest.raises(LabsError):
        speculation.eagle3(target, draft=Eagle3Draft(torch.arange(64)), **wrong)


def test_missing_weights_are_named(target, tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_DRAFTS", str(tmp_path))
    with pytest.raises(LabsError, match="medusa"):
        speculation.medusa(target)
