"""The block allocator: nothing leaks, and every sequence reads its own text whoever shares its blocks."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labs_helpers.bench import BlockAllocator, blocks_for, kv_bytes_per_token, unused_share
from labs_helpers.errors import LabsError

BLOCKS, SIZE = 12, 4


class Allocating(RuleBasedStateMachine):
    """Any calls; beside each block stands what was written into it, as the KV cache would hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockAllocator(BLOCKS, SIZE)
        self.texts: dict[str, list[int]] = {}
        self.memory: dict[tuple[int, int], int] = {}
        self.made = 0

    def name(self) -> str:
        self.made += 1
        return f"s{self.made}"

    def write(self, sequence: str, position: int, token: int) -> None:
        block = self.pool.tables()[sequence][position // SIZE]
        self.memory[block, position % SIZE] = token

    @rule(tokens=st.integers(1, 3 * SIZE))
    def allocate(self, tokens: int) -> None:
        name = self.name()
        enough = blocks_for(tokens, SIZE) <= self.pool.unused()
        assert self.pool.allocate(name, tokens) == enough
        if enough:
            self.texts[name] = [self.made * 1000 + i for i in range(tokens)]
            for position, token in enumerate(self.texts[name]):
                self.write(name, position, token)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), token=st.integers(0, 10**6))
    def append(self, data: st.DataObject, token: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.texts)))
        before = self.pool.tables()[name]
        unused = self.pool.unused()
        if not self.pool.append(name):
            assert self.pool.tables()[name] == before
            assert unused == 0
            return
        after = self.pool.tables()[name]
        if len(after) == len(before) and after[-1] != before[-1]:  # the engine copies what the old block held
            for slot in range(SIZE):
                if (before[-1], slot) in self.memory:
                    self.memory[after[-1], slot] = self.memory[before[-1], slot]
        self.texts[name].append(token)
        self.write(name, len(self.texts[name]) - 1, token)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent, child = data.draw(st.sampled_from(sorted(self.texts))), self.name()
        unused = self.pool.unused()
        self.pool.fork(parent, child)
        assert self.pool.unused() == unused, "a fork takes no memory"
        self.texts[child] = list(self.texts[parent])

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.texts)))
        unused = self.pool.unused()
        assert self.pool.free(name) == self.pool.unused() - unused
        del self.texts[name]

    @invariant()
    def nothing_leaks(self) -> None:
        held = {block for table in self.pool.tables().values() for block in table}
        assert len(held) + self.pool.unused() == BLOCKS

    @invariant()
    def every_sequence_reads_its_own_text(self) -> None:
        for name, table in self.pool.tables().items():
            text = self.texts[name]
            assert len(table) == blocks_for(len(text), SIZE)
            assert [self.memory[table[i // SIZE], i % SIZE] for i in range(len(text))] == text


TestAllocating = Allocating.TestCase
TestAllocating.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_bytes_per_token_of_known_models():
    """Llama-3.1-8B: 128 KiB in bf16; Llama-2-7B, without grouped queries: 512 KiB."""
    llama = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32}
    assert kv_bytes_per_token(llama) == 512 * 1024
    assert kv_bytes_per_token(llama | {"num_key_value_heads": 8}) == 128 * 1024
    assert kv_bytes_per_token(llama | {"num_key_value_heads": 8}, 1) == 64 * 1024
    assert kv_bytes_per_token(llama | {"head_dim": 256}) == 1024 * 1024


def test_empty_share_of_what_is_reserved():
    assert unused_share([4, 8], 4) == 0
    assert unused_share([1], 4) == 0.75
    assert unused_share([10, 30], 100) == pytest.approx(0.8)
    with pytest.raises(LabsError):
        unused_share([], 4)
