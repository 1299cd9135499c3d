"""The scheduler's step and the loads that are simulated with it."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.bench import STEPS, StepCost, blocks_for, schedule, simulate_batching
from labs_helpers.bench.batching import STEP_TOKENS
from labs_helpers.errors import LabsError

REQUESTS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=30)


@st.composite
def states(draw: st.DrawFn) -> tuple[list, list, int, int, int, int]:
    block = draw(st.sampled_from((1, 4, 16)))
    running = []
    for i in range(draw(st.integers(0, 6))):
        tokens = draw(st.integers(2, 50))
        running.append({"id": f"r{i}", "tokens": tokens, "computed": draw(st.integers(1, tokens - 1))})
    waiting = [
        {"id": f"w{i}", "tokens": draw(st.integers(1, 50)), "computed": 0} for i in range(draw(st.integers(0, 6)))
    ]
    return running, waiting, draw(st.integers(0, 20)), block, draw(st.integers(1, 100)), draw(st.integers(6, 10))


@given(states())
def test_a_step_keeps_every_limit_and_loses_nobody(state):
    running, waiting, free, block, budget, seats = state
    before = json.dumps(state)
    plan = schedule(*state)
    assert json.dumps(state) == before, "what is given is not changed"
    everybody = {r["id"]: r for r in [*running, *waiting]}
    assert sorted([*plan["running"], *plan["waiting"]]) == sorted(everybody)
    assert sum(plan["scheduled"].values()) <= budget
    assert len(plan["running"]) <= seats
    assert set(plan["scheduled"]) <= set(plan["running"])
    assert all(0 < n <= everybody[i]["tokens"] - everybody[i]["computed"] for i, n in plan["scheduled"].items())
    held = sum(blocks_for(r["computed"], block) for r in running)
    wanted = sum(blocks_for(everybody[i]["computed"] + plan["scheduled"].get(i, 0), block) for i in plan["running"])
    assert wanted <= held + free, "no block is given twice"


@given(states())
def test_order_is_kept_and_the_preempted_come_back_first(state):
    running, waiting, *_ = state
    plan = schedule(*state)
    assert [*plan["running"], *plan["waiting"]] == [r["id"] for r in [*running, *waiting]]
    assert not plan["preempted"] or set(plan["scheduled"]) <= {r["id"] for r in running}


@given(REQUESTS, st.integers(1, 8), st.booleans())
def test_a_load_runs_to_its_end_and_makes_every_token(requests, streams, waves):
    """Cost 1 per token of a step: prompts once, and each output token but the last is read once."""
    found = simulate_batching(requests, streams, StepCost(0.0, 1.0), waves=waves)
    assert found.seconds == pytest.approx(sum(prompt + output - 1 for prompt, output in requests))
    assert max(found.running) <= streams


@given(REQUESTS, st.integers(1, 8))
def test_waves_take_the_longest_of_each_wave(requests, streams):
    assert simulate_batching(requests, streams, waves=True).steps == sum(
        max(output for _, output in requests[first : first + streams]) for first in range(0, len(requests), streams)
    )


@given(REQUESTS, st.integers(1, 8))
def test_free_flow_never_takes_more_steps_than_waves(requests, streams):
    assert simulate_batching(requests, streams).steps <= simulate_batching(requests, streams, waves=True).steps


def test_equal_lengths_gain_nothing_from_free_flow():
    equal = [(10, 20)] * 32
    assert simulate_batching(equal, 8).steps == simulate_batching(equal, 8, waves=True).steps


def test_a_small_pool_preempts_and_still_ends():
    found = simulate_batching([(40, 100)] * 8, 8, budget=256, blocks=40, block_size=16)
    assert found.preemptions > 0
    assert simulate_batching([(40, 100)] * 8, 8, budget=256, blocks=80, block_size=16).preemptions == 0


def test_a_request_larger_than_the_pool_is_an_error_not_an_endless_loop():
    with pytest.raises(LabsError, match="schedules nothing"):
        simulate_batching([(100, 1)], 1, blocks=2, block_size=16)


def test_the_cost_of_a_step_is_found_again():
    draw = random.Random(0)
    runs = []
    for streams in (1, 4, 16, 64):
        steps, tokens = 200.0, 200.0 * streams
        seconds = (steps * 0.008 + tokens * 0.0002) * draw.uniform(0.98, 1.02)
        counts = {STEPS: steps, STEP_TOKENS: tokens}
        runs.append(SimpleNamespace(engine_count=counts.__getitem__, duration_s=seconds))
    cost = StepCost.fit(runs)
    assert cost.per_step_s == pytest.approx(0.008, rel=0.05)
    assert cost.per_token_s == pytest.approx(0.0002, rel=0.05)
    with pytest.raises(LabsError, match="do not tell two costs apart"):
        StepCost.fit(runs[:1])
