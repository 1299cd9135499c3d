"""A draft model: a smaller model of the same vocabulary writes ahead, the target checks (Leviathan et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from labs_helpers.speculation.drafter import NOTHING, Draft, Sampling
from labs_helpers.speculation.packed import WeightType
from labs_helpers.speculation.target import Target
from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    from labs_helpers.speculation.target import Output


class DraftModel:
    """Chains of `length` tokens from a small Llama, greedy or, at a temperature, drawn from its distribution."""

    name = "draft model"
    taps: tuple[int, ...] = ()
    all_rows = False

    def __init__(self, folder: Path, length: int = 4, kind: WeightType = "int8", threads: int = 1) -> None:
        self.model, self.length = Target.load(kind, threads, folder), length
        self._unread: list[int] = []
        self._past = 0
        self._drafted = 0

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        self._past = self.model.prefill(prompt).length
        self._unread, self._sampling, self._drafted = [first], sampling, 0

    def draft(self, room: int) -> Draft:
        length = min(self.length, room)
        if length < 1:
            return Draft((), NOTHING)
        tokens: list[int] = []
        rows: list[torch.Tensor] = []
        past, unread = self._past, self._unread
        for _ in range(length):
            output = self.model.step(unread, past, Tree.chain(len(unread) - 1))
            past += len(unread)
            if self._sampling.temperature:
                rows.append(torch.softmax(output.logits[-1] / self._sampling.temperature, -1))
                token = int(torch.multinomial(rows[-1], 1, generator=self._sampling.generator))
            else:
                token = int(output.logits[-1].argmax())
            tokens.append(token)
            unread = [token]
        self._past, self._drafted = past, length
        drawn = torch.stack([*rows, torch.zeros_like(rows[0])]) if rows else None
        return Draft(tuple(tokens), Tree.chain(length), drawn)

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        """Drop the rows of drafts that fell. Of `length` drafts it has read all but the last."""
        accepted = len(path) - 1
        if not self._drafted:
            self._unread = [*self._unread, *tokens]
            return
        fell = max(self._drafted - 1 - accepted, 0)
        self._past -= fell
        self._unread = list(tokens[-2:] if accepted == self._drafted else tokens[-1:])
        self._drafted = 0
