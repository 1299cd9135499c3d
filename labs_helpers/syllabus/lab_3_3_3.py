"""Lab 3.3.3, vLLM: continuous batching, PagedAttention, KV-cache quantization: what it needs, must measure and asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labs_helpers.exercises import Case, Judge, Outcome, equals, holds
from labs_helpers.syllabus import LabSpec
from labs_helpers.syllabus.requirements import (
    concurrencies_measured,
    engines_measured,
    figures_within,
    none_failed,
    witnessed,
)

CONCURRENCY = (1, 4, 16, 64)

Trace = tuple[tuple[str, tuple[Any, ...]], ...]


def allocates(blocks: int, expected: Sequence[Any]) -> Judge:
    """Right when every call returned what is expected; block tables may use any block numbers.

    In an expected table each block has a name of its own for as long as it is held. A name must stand for one number in
    all tables, and two names never for the same number at a time: a sequence's blocks do not move.
    """

    def rule(value: Any) -> str:
        numbers: dict[Any, int] = {}
        for call, (found, wanted) in enumerate(zip(value, expected, strict=True), 1):
            if not isinstance(wanted, dict):
                if why := equals(wanted)(Outcome(value=found)):
                    return f"call {call}: {why}"
                continue
            if why := _same_tables(found, wanted, numbers, blocks):
                return f"call {call}, tables(): {why}"
        return ""

    return holds(rule)


def _same_tables(found: Any, wanted: Mapping[str, Sequence[Any]], numbers: dict[Any, int], blocks: int) -> str:
    if sorted(found) != sorted(wanted):
        return f"sequences {sorted(wanted)} hold blocks, got {sorted(found)}"
    now: dict[int, Any] = {}
    for sequence, names in wanted.items():
        table = found[sequence]
        if len(table) != len(names):
            return f"{sequence!r} holds {len(names)} blocks, got {len(table)}"
        for name, number in zip(names, table, strict=True):
            if type(number) is not int or not 0 <= number < blocks:
                return f"{number!r} is no block of 0 to {blocks - 1}"
            if numbers.setdefault(name, number) != number:
                return f"a block of {sequence!r} has moved from {numbers[name]} to {number}, or is not shared"
            if now.setdefault(number, name) != name:
                return f"block {number} is used twice, and should not be shared there"
    return ""


def allocator_case(name: str, blocks: int, block_size: int, *calls: tuple[str, tuple[Any, ...], Any]) -> Case:
    """A case of (method, arguments, what it must return)."""
    trace = tuple((method, arguments) for method, arguments, _ in calls)
    return Case(name, allocates(blocks, [wanted for _, _, wanted in calls]), (blocks, block_size), trace)


BLOCK_ALLOCATOR = (
    allocator_case(
        "whole blocks, the last one partly empty",
        4, 4,
        ("allocate", ("a", 5), True),
        ("unused", (), 2),
        ("tables", (), {"a": ["A", "B"]}),
        ("allocate", ("b", 4), True),
        ("unused", (), 1),
        ("tables", (), {"a": ["A", "B"], "b": ["C"]}),
    ),
    allocator_case(
        "what does not fit changes nothing",
        3, 4,
        ("allocate", ("a", 8), True),
        ("allocate", ("b", 5), False),
        ("unused", (), 1),
        ("tables", (), {"a": ["A", "B"]}),
        ("allocate", ("b", 4), True),
    ),
    allocator_case(
        "append fills the last block before it takes a new one",
        2, 2,
        ("allocate", ("a", 1), True),
        ("append", ("a",), True),
        ("unused", (), 1),
        ("append", ("a",), True),
        ("append", ("a",), True),
        ("unused", (), 0),
        ("append", ("a",), False),
        ("tables", (), {"a": ["A", "B"]}),
    ),
    allocator_case(
        "free gives back what nobody else holds",
        4, 4,
        ("allocate", ("a", 8), True),
        ("fork", ("a", "b"), None),
        ("unused", (), 2),
        ("tables", (), {"a": ["A", "B"], "b": ["A", "B"]}),
        ("free", ("a",), 0),
        ("free", ("b",), 2),
        ("unused", (), 4),
        ("tables", (), {}),
    ),
    allocator_case(
        "a shared block is copied when it is written to",
        4, 4,
        ("allocate", ("a", 6), True),
        ("fork", ("a", "b"), None),
        ("append", ("b",), True),
        ("unused", (), 1),
        ("tables", (), {"a": ["A", "B"], "b": ["A", "C"]}),
        ("append", ("a",), True),
        ("unused", (), 1),
        ("tables", (), {"a": ["A", "B"], "b": ["A", "C"]}),
    ),
)  # fmt: skip


def request(name: str, tokens: int, computed: int = 0) -> dict[str, Any]:
    return {"id": name, "tokens": tokens, "computed": computed}


def plan(
    scheduled: dict[str, int], running: Sequence[str], waiting: Sequence[str] = (), preempted: Sequence[str] = ()
) -> Judge:
    return equals(
        {
            "scheduled": scheduled,
            "preempted": list(preempted),
            "running": list(running),
            "waiting": list(waiting),
        }
    )


SCHEDULE = (
    Case(
        "those that run get a token each, then the first that waits is admitted",
        plan({"a": 1, "b": 1, "c": 10}, ["a", "b", "c"]),
        ([request("a", 9, 8), request("b", 21, 20)], [request("c", 10)], 100, 16, 64, 8),
    ),
    Case(
        "a prompt longer than what is left of the budget is split",
        plan({"a": 1, "b": 31}, ["a", "b"], ["c"]),
        ([request("a", 9, 8)], [request("b", 100), request("c", 5)], 100, 16, 32, 8),
    ),
    Case(
        "no more sequences than there are seats",
        plan({"a": 1, "b": 5}, ["a", "b"], ["c"]),
        ([request("a", 9, 8)], [request("b", 5), request("c", 5)], 100, 16, 64, 2),
    ),
    Case(
        "no block left: the last of the running goes, and nobody is admitted",
        plan({"a": 1}, ["a"], ["b", "c"], ["b"]),
        ([request("a", 17, 16), request("b", 9, 8)], [request("c", 4)], 0, 16, 64, 8),
    ),
    Case(
        "who waits first is not overtaken by one that would fit",
        plan({}, [], ["a", "b"]),
        ([], [request("a", 40), request("b", 4)], 2, 16, 64, 8),
    ),
)

LLAMA_8B = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}

KV_BYTES = (
    Case("Llama-3.1-8B in bf16", equals(131_072), (LLAMA_8B, 2)),
    Case("the same in fp8", equals(65_536), (LLAMA_8B, 1)),
    Case(
        "every head its own keys and values",
        equals(524_288),
        ({"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32}, 2),
    ),
    Case("a head size of its own", equals(147_456), (
        {"num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 128}, 2)),
)  # fmt: skip

KNEE = (
    Case(
        "goodput rises, then falls",
        equals([2.0, 2.0]),
        (
            [
                [1.0, 2.0, [[50, 10], [50, 10]]],
                [2.0, 2.0, [[60, 10], [60, 10], [60, 10], [60, 10]]],
                [3.0, 2.0, [[60, 10], [90, 10], [500, 10], [600, 10], [700, 10], [800, 10]]],
            ],
            100,
            20,
            0.9,
        ),
    ),
    Case(
        "more goodput, but too many are late",
        equals([1.0, 1.0]),
        ([[1.0, 2.0, [[50, 10]] * 2], [3.0, 2.0, [[50, 10]] * 4 + [[500, 10]] * 2]], 100, 20, 0.9),
    ),
    Case(
        "both limits count, and exactly at the limit is met",
        equals([1.0, 1.0]),
        ([[2.0, 1.0, [[50, 30], [50, 31]]], [1.0, 1.0, [[100, 20]]]], 100, 20, 0.9),
    ),
    Case(
        "one that failed meets nothing; an answer of one token has no TPOT to miss",
        equals([4.0, 1.0]),
        ([[4.0, 1.0, [[None, None], [20, None]]]], 100, 20, 0.5),
    ),
    Case("nothing was in time", equals(None), ([[1.0, 1.0, [[500, 10]]]], 100, 20, 0.5)),
)

SPEC = LabSpec(
    id="3.3.3",
    title="vLLM: Continuous Batching and PagedAttention",
    engines=("vllm",),
    requirements=(
        concurrencies_measured("output_throughput", CONCURRENCY, 1),
        engines_measured("throughput_gain", 1),
        figures_within("speedup", least=1.5, workload="mixed lengths"),
        engines_measured("prediction_error", 1),
        engines_measured("goodput", 1),
        witnessed("completion_tokens", 0.0, 1),
        figures_within("preemptions", least=1, workload="long answers, small pool"),
        engines_measured("kv_bytes_per_token", 1),
        engines_measured("running_requests", 1),
        engines_measured("loss", 1),
        none_failed(),
    ),
    cases={
        "BlockAllocator": BLOCK_ALLOCATOR,
        "schedule": SCHEDULE,
        "kv_bytes": KV_BYTES,
        "knee": KNEE,
    },
)
