"""Figures of a comparison follow from its generations; costs and the speedup that follows from them."""

from itertools import accumulate

import pytest

from labs_helpers import speculation
from labs_helpers.errors import LabsError
from labs_helpers.results import LabResult
from labs_helpers.speculation.answers import Answers, position_rates
from labs_helpers.speculation.cost import interpolate, predicted_speedup
from labs_helpers.speculation.loop import Generation
from labs_helpers.speculation.measuring import Comparison


def answer(ids, accepted, depth, seconds=1.0):
    rounds = len(accepted)
    depths = (depth,) * rounds
    return Generation(tuple(ids), rounds, tuple(accepted), depth * rounds, depths, seconds, 0.1, 0.2, 0.5)


PLAIN = tuple((answer(range(9), [0] * 8, 0, seconds),) for seconds in (4.0, 4.4, 3.6))
FAST = tuple((answer(range(9), [3, 2, 0], 3, seconds),) for seconds in (2.0, 2.2, 1.8))
WRONG = tuple((answer([0, 1, 5], [1], 3, 2.0),) for _ in range(3))


def comparison():
    found = {"plain": PLAIN, "fast": FAST, "wrong": WRONG}
    return Comparison(
        {name: Answers(name, g, PLAIN) for name, g in found.items()}, "test", 5.0, "fp32", 1, "a machine, 2 cores"
    )


def test_the_rows_hold_what_was_measured():
    found = comparison()
    assert found.measurement("speedup", "fast").value == pytest.approx(2.0)
    assert found.measurement("speedup", "fast").spread.low == pytest.approx(2.0)
    assert found.measurement("acceptance_length", "fast").value == pytest.approx(8 / 3)
    assert found.measurement("token_agreement", "fast").value == 1.0
    assert found.measurement("token_agreement", "wrong").value == 0.0
    assert found["fast"].position_rates == pytest.approx([2 / 3, 1.0, 0.5])
    assert found["fast"].milliseconds == pytest.approx({"draft": 200 / 3, "verify": 500 / 3, "other": 1200 / 3})
    assert found.measurement("output_throughput", "plain").method == ""
    assert {row.metric for row in found.measurements() if not row.method} == {"output_throughput"}
    assert LabResult(lab="3.3.4", measurements=found.measurements())
    with pytest.raises(LabsError, match="methods: plain"):
        found.measurement("speedup", "slow")


def test_comparisons_are_pooled_over_their_prompts():
    pooled = speculation.pooled([comparison(), comparison()])
    assert pooled["fast"].rounds == 6 and pooled["fast"].tokens == 18
    assert pooled["fast"].seconds == pytest.approx((4.0, 4.4, 3.6))


def test_a_draft_past_the_end_counts_neither_way():
    ended = Generation((1, 2, 3), 1, (1,), 3, (1,), 1.0, 0.1, 0.1, 0.1)
    assert position_rates([ended]) == [1.0]


def test_methods_take_turns_and_agree():
    target = speculation.Target.load()
    found = speculation.measure(
        target, {"prompt lookup": speculation.prompt_lookup()}, ["What is prefill?", "What is a block?"],
        passes=2, max_new_tokens=12, progress=False,
    )  # fmt: skip
    assert list(found) == ["plain", "prompt lookup"]
    assert found["prompt lookup"].agreement == 1.0 and found["plain"].acceptance_length == 1.0
    for name in found:
        for one in found[name].all:
            assert 0 < one.prefill_seconds < one.seconds
            assert one.draft_seconds + one.verify_seconds <= one.seconds
    with pytest.raises(LabsError):
        speculation.measure(target, {}, [])


def test_transformers_assisted_generation_is_the_same_text(tmp_path):
    from labs_helpers.model.spec import shipped_dir
    from labs_helpers.speculation.transformers_loop import HfAssisted

    target = speculation.Target.load()
    for assistant in (None, shipped_dir()):
        found = speculation.measure(
            target, {"theirs": HfAssisted(assistant, 3)}, ["What is prefill?"], passes=1, progress=False
        )
        assert found["theirs"].agreement == 1.0
        if assistant is None:
            assert found["theirs"].acceptance_length == 1.0
        else:  # the model drafts for itself, so it is right but where rounding decides
            assert found["theirs"].acceptance_length > 2.5


def test_costs_are_measured():
    target = speculation.Target.load()
    seconds = speculation.verify_costs(target, (1, 4, 32), passes=3)
    assert list(seconds) == [1, 4, 32] and all(value > 0 for value in seconds.values())
    assert speculation.draft_cost(target, speculation.prompt_lookup(), prompts=1) > 0
    with pytest.raises(LabsError):
        speculation.verify_costs(target, (0,))


def test_the_model_of_the_speedup():
    assert predicted_speedup(4.0, 1.2, 0.4) == pytest.approx(2.5)
    assert predicted_speedup(4.0, 1.2, 0.4, prefill_share=1.0) == 1.0
    assert predicted_speedup(1.0, 1.0, 0.0, prefill_share=0.3) == pytest.approx(1.0)
    line = {1: 1.0, 2: 2.0, 4: 3.0}
    assert [interpolate(line, size) for size in (1, 1.5, 3, 4, 6)] == pytest.approx([1.0, 1.5, 2.5, 3.0, 4.0])
    with pytest.raises(LabsError):
        interpolate({1: 1.0}, 3)


def test_a_round_can_be_looked_at():
    target = speculation.Target.load()
    from labs_helpers.model.prompts import chat_token_ids

    ids = chat_token_ids([("user", "What is prefill?")])
    plain = speculation.generate(target, ids, max_new_tokens=8).ids
    seen = speculation.first_round(target, speculation.prompt_lookup(), ids)
    new = [seen.tokens[node] for node in seen.accepted] + [seen.bonus]
    assert seen.tokens[0] == plain[0] and new == list(plain[1 : 1 + len(new)])
    assert list(accumulate([1, *seen.parents[1:]])) and len(seen.parents) == len(seen.tokens)
