"""Prompt lookup: what followed the last time these words stood there (Saxena 2023; vLLM and SGLang call it n-gram)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labs_helpers.speculation.drafter import NOTHING, Draft, Sampling
from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    from labs_helpers.speculation.target import Output, Target


class PromptLookup:
    """Drafts the `length` tokens that followed the latest earlier place of the last `ngram` tokens, or of fewer.

    smallest: n-grams shorter than this are not looked up. Costs no model, so it pays wherever text is copied.
    """

    name = "prompt lookup"
    taps: tuple[int, ...] = ()
    all_rows = False

    def __init__(self, ngram: int = 3, length: int = 4, smallest: int = 2) -> None:
        self.ngram, self.length, self.smallest = ngram, length, smallest
        self._ids: list[int] = []

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        self._ids = [*prompt, first]

    def draft(self, room: int) -> Draft:
        found = continuation(self._ids, self.ngram, min(self.length, room), self.smallest)
        return Draft(found, Tree.chain(len(found))) if found else Draft((), NOTHING)

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        self._ids += tokens


def continuation(ids: Sequence[int], ngram: int, length: int, smallest: int = 1) -> tuple[int, ...]:
    """Up to `length` tokens after the latest earlier place where the last n tokens stand, n from `ngram` down to
    `smallest`; () where there is none."""
    end = len(ids)
    for size in range(min(ngram, end - 1), smallest - 1, -1):
        key = list(ids[end - size :])
        last = key[-1]
        for at in range(end - 2, size - 2, -1):
            if ids[at] == last and list(ids[at - size + 1 : at + 1]) == key:
                return tuple(ids[at + 1 : at + 1 + length])
    return ()
