"""The shipped drafts in the loop: the model's own tokens, and more than one of them per step."""

import pytest

from labs_helpers import speculation
from labs_helpers.model.prompts import prompts_by_class

EACH = {"seen-like": 2, "slot-bearing": 2}


@pytest.fixture(scope="module")
def target():
    return speculation.Target.load()


def methods(target):
    return {
        "prompt lookup": speculation.prompt_lookup(),
        "draft model": speculation.draft_model(target),
        "medusa": speculation.medusa(target),
        "eagle": speculation.eagle(target),
        "eagle3": speculation.eagle3(target),
        "eagle3, dynamic tree": speculation.eagle3(target, depth=5, topk=3, nodes=11),
    }


def drafted(target, methods, counts, seed):
    prompts = [text for kind, n in counts.items() for text in prompts_by_class(kind, n, seed)]
    return speculation.measure(target, methods, prompts, passes=1, progress=False)


def test_trained_drafts_are_accepted_and_leave_the_text(target):
    """Floors well below what was measured: a draft fed with wrong features falls to one token per step."""
    found = drafted(target, methods(target), EACH, seed=2)
    assert {name: found[name].agreement for name in found} == dict.fromkeys(found, 1.0)
    floors = {"draft model": 1.8, "medusa": 1.3, "eagle": 1.1, "eagle3": 2.0, "eagle3, dynamic tree": 2.0}
    assert {name: tau for name, tau in floors.items() if found[name].acceptance_length < tau} == {}
    assert found["eagle3"].acceptance_length > found["eagle"].acceptance_length


@pytest.mark.slow
def test_every_lossless_method_writes_the_plain_tokens(target):
    """On 20 held-out prompts; `benchmarks/speculation.py --identity 200` takes ten times as many, and minutes."""
    counts = {"seen-like": 8, "slot-bearing": 8, "off-domain": 4}
    found = drafted(target, methods(target), counts, seed=11)
    assert {name: found[name].same for name in found} == dict.fromkeys(found, 20)
