"""Workloads have exactly the lengths and exactly the common beginnings that they say."""

from __future__ import annotations

from math import ceil

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.bench import predict_cached
from labs_helpers.bench.prefix_cache import shared
from labs_helpers.errors import LabsError
from labs_helpers.model import workloads
from labs_helpers.model.tokenizer import TURN_END, TURN_START

MARKER = 3
"""Tokens of '<|im_start|>user' and the line break: what even strangers share."""
EIGHTHS = st.integers(0, 8).map(lambda n: n / 8)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10), st.sampled_from((4, 16, 100)), st.sampled_from((16, 48)), EIGHTHS, st.integers(0, 9))
def test_prefix_prompts_have_the_length_and_the_share_asked_for(n, prefix, tail, share, seed):
    work = workloads.shared_prefix(n, prefix, tail, share=share, seed=seed)
    assert [len(prompt) for prompt in work] == [prefix + tail] * n
    alike = [shared(work[0], prompt) for prompt in work[1:]]
    assert set(alike) <= {MARKER, prefix}
    if share > 0 and prefix > MARKER:
        assert 1 + alike.count(prefix) == ceil(n * share)
    elif share == 0:
        assert alike.count(MARKER) == n - 1


def test_the_two_kinds_are_spread_evenly():
    work = workloads.shared_prefix(8, 64, share=0.5)
    assert [shared(work[0], prompt) == 64 for prompt in work[1:]] == [False, True, False, True, False, True, False]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(LabsError, match="the share is"):
        workloads.shared_prefix(2, 64, share=share)


def test_lengths_without_room_are_refused():
    with pytest.raises(LabsError, match="no room for the marker"):
        workloads.shared_prefix(1, 3)
    with pytest.raises(LabsError, match="no room for a text"):
        workloads.shared_prefix(1, 64, 8)


def test_more_siblings_than_first_words_are_refused_instead_of_repeated():
    with pytest.raises(LabsError, match="parts more than"):
        list(workloads._first_tokens(0))


def test_branches_part_exactly_where_they_should():
    sizes = (20, 30, 16, 18)
    work = workloads.branches(2, 3, 2, sizes=sizes, seed=4)
    assert {len(prompt) for prompt in work} == {sum(sizes)}
    depths = {shared(a, b) for i, a in enumerate(work) for b in work[i + 1 :]}
    assert depths == {20, 50, 66}
    computed = sum(map(len, work)) - sum(predict_cached([(prompt, []) for prompt in work]))
    assert computed == 20 + 2 * 30 + 6 * 16 + 12 * 18


def test_the_same_seed_gives_the_same_prompts_and_another_others():
    assert workloads.branches(2, 2, 2, seed=1) == workloads.branches(2, 2, 2, seed=1)
    assert workloads.branches(2, 2, 2, seed=1) != workloads.branches(2, 2, 2, seed=2)


def test_few_shot_prompts_of_one_task_share_its_examples():
    work = workloads.few_shot(tasks=2, shots=3, questions=3)
    texts = [workloads._tokenizer().decode(prompt, skip_special_tokens=False) for prompt in work]
    assert all(text.count(TURN_END) == 7 and text.endswith(f"{TURN_START}assistant\n") for text in texts)
    examples = [text.rsplit(f"{TURN_START}user", 1)[0] for text in texts]
    assert examples[0::2] == [examples[0]] * 3 and examples[1::2] == [examples[1]] * 3
    assert len(set(texts)) == 6


def test_popular_prefixes_are_popular_and_their_order_does_not_depend_on_length():
    def visits(length: int) -> list[int]:
        work = workloads.popular(4, 40, length, seed=2)
        assert {len(prompt) for prompt in work} == {length + 32}
        known: dict[tuple[int, ...], int] = {}
        return [known.setdefault(tuple(prompt[:length]), len(known)) for prompt in work]

    order = visits(16)
    assert order == visits(48)
    assert max(order.count(k) for k in range(4)) > 40 / 4


def test_conversations_ask_different_questions():
    system, users = workloads.conversations(3, 2, system_tokens=64)
    assert len(workloads.text_ids(system)) == pytest.approx(64, abs=16)
    assert [len(asked) for asked in users] == [2, 2, 2]
    assert len({question for asked in users for question in asked}) == 6


def test_chat_ids_are_those_of_the_chat_template():
    from labs_helpers.model.spec import shipped_dir
    from labs_helpers.model.tokenizer import load_tokenizer

    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is prefill?"}]
    text = load_tokenizer(shipped_dir()).apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert workloads.chat_ids(talk) == workloads.text_ids(text)


def test_service_entries_say_what_is_in_them():
    entries = workloads.service_entries(50)
    assert len({prompt for prompt, _ in entries}) == 50
    for prompt, entry in entries:
        jsonschema.validate(entry, {"type": "object", "required": ["name", "port", "engine"]})
        assert all(str(value) in prompt for value in entry.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(16, 300), st.integers(0, 9))
def test_distinct_prompts_have_their_length_and_share_nothing_but_the_marker(n, tokens, seed):
    work = workloads.distinct(n, tokens, seed=seed)
    assert [len(prompt) for prompt in work] == [tokens] * n
    assert all(shared(a, b) == MARKER for i, a in enumerate(work) for b in work[:i])
    assert all(workloads._tokenizer().decode(p, skip_special_tokens=False).startswith(TURN_START) for p in work)


def test_a_longer_trace_begins_with_the_same_lengths():
    short, long = workloads.mixed_lengths(20), workloads.mixed_lengths(60)
    assert [(len(p), n) for p, n in short] == [(len(p), n) for p, n in long[:20]]


def test_mixed_lengths_are_those_that_are_stated():
    trace = workloads.mixed_lengths(400, seed=1)
    assert all(32 <= len(prompt) <= 64 for prompt, _ in trace)
    assert all(4 <= n <= 16 or 64 <= n <= 128 for _, n in trace)
    assert 0.1 < sum(n >= 64 for _, n in trace) / len(trace) < 0.3


def test_held_out_texts_are_cut_to_length_and_differ():
    texts = workloads.held_out_texts(3, 200)
    assert [len(text) for text in texts] == [200] * 3
    assert len({tuple(text) for text in texts}) == 3
