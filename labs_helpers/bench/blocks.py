"""The KV cache in blocks, as an operating system keeps memory in pages: who holds which block, and what is wasted.

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention"
(arXiv 2309.06180), sections 4.2 to 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from labs_helpers.errors import LabsError


class BlockAllocator:
    """Blocks of a KV cache and the sequences that hold them.

    Sequences that were forked share blocks; a shared block is copied when one of them must write into it. What does
    not fit changes nothing.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._unused = list(range(blocks))
        self._holders = [0] * blocks
        self._blocks: dict[str, list[int]] = {}
        self._tokens: dict[str, int] = {}

    def allocate(self, sequence: str, tokens: int) -> bool:
        """Blocks for the first `tokens` tokens of a new sequence. False when there are too few."""
        needed = blocks_for(tokens, self.block_size)
        if needed > len(self._unused):
            return False
        self._blocks[sequence] = [self._take() for _ in range(needed)]
        self._tokens[sequence] = tokens
        return True

    def append(self, sequence: str) -> bool:
        """Room for one more token. False when that needs a block and none is left."""
        held, tokens = self._blocks[sequence], self._tokens[sequence]
        starts_block = tokens % self.block_size == 0
        shares_last = not starts_block and self._holders[held[-1]] > 1
        if starts_block or shares_last:
            if not self._unused:
                return False
            if shares_last:
                self._holders[held.pop()] -= 1  # the others keep the original
            held.append(self._take())
        self._tokens[sequence] = tokens + 1
        return True

    def fork(self, parent: str, child: str) -> None:
        """A new sequence that begins as the parent is now, and shares all of its blocks."""
        self._blocks[child] = list(self._blocks[parent])
        self._tokens[child] = self._tokens[parent]
        for block in self._blocks[child]:
            self._holders[block] += 1

    def free(self, sequence: str) -> int:
        """End a sequence. Returns how many blocks are unused again."""
        before = len(self._unused)
        for block in self._blocks.pop(sequence):
            self._holders[block] -= 1
            if not self._holders[block]:
                self._unused.append(block)
        del self._tokens[sequence]
        return len(self._unused) - before

    def tables(self) -> dict[str, list[int]]:
        """The block table of every sequence."""
        return {sequence: list(held) for sequence, held in self._blocks.items()}

    def unused(self) -> int:
        """Blocks that nobody holds."""
        return len(self._unused)

    def _take(self) -> int:
        block = self._unused.pop()
        self._holders[block] = 1
        return block


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold so many tokens; the last one may be partly empty."""
    return -(-tokens // block_size)


def kv_bytes_per_token(config: Mapping[str, Any], bytes_per_value: float = 2) -> float:
    """Bytes that one token adds to the KV cache: a key and a value per layer and KV head.

    Args:
        config: a model's config.json. Without `num_key_value_heads` every query head has its own; without `head_dim`
            the hidden size is divided among the query heads.
        bytes_per_value: 2 for bf16, 1 for fp8 or int8.
    """
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return 2 * int(config["num_hidden_layers"]) * int(kv_heads) * int(head_dim) * bytes_per_value


def unused_share(lengths: Iterable[int], block_size: int) -> float:
    """Share of the reserved token slots that sequences of these lengths leave empty at their end.

    With `block_size` equal to the longest possible sequence this is contiguous reservation.
    """
    used = list(lengths)
    reserved = sum(blocks_for(n, block_size) * block_size for n in used)
    if not reserved:
        raise LabsError("there are no sequences", "give at least one length")
    return 1 - sum(used) / reserved
