"""Batches of whole sequences for drafts that attend: sequences of like length side by side, padded at their end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from labs_helpers.speculation.features import Answered
from labs_helpers.speculation.fitting import Batch

PAST_THE_END = 16
"""Tokens past an answer's end that are still learned from."""


@dataclass(frozen=True)
class Rows:
    """A part of a batch.

    ids: int64 [rows, t]; features: by name, float [rows, t, hidden]; anchors: int64 [rows, a], the places drafted
    from; real: bool [rows, a], False where a row has fewer; lengths: int64 [rows]; total: anchors of the whole batch.
    """

    ids: torch.Tensor
    features: dict[str, torch.Tensor]
    anchors: torch.Tensor
    real: torch.Tensor
    lengths: torch.Tensor
    total: int

    def at(self, offset: int) -> torch.Tensor:
        """Indices [rows, a] of the tokens `offset` after the anchors, kept inside the row."""
        return (self.anchors + offset).clamp_max(self.ids.shape[1] - 1)

    def within(self, offset: int) -> torch.Tensor:
        """bool [rows, a]: there is a token `offset` after the anchor."""
        return self.real & (self.anchors + offset < self.lengths[:, None])


@dataclass(frozen=True)
class Span:
    """A sequence: where it stands, its prompt's tokens and its anchors' end."""

    start: int
    stop: int
    prompt: int

    @property
    def anchors(self) -> int:
        """Places drafted from: the prompt's last token, and the answer's but for its last two."""
        return max(0, self.stop - self.start - 2 - (self.prompt - 1))


def spans(found: Answered) -> list[Span]:
    """All sequences, each cut a little past the end of its answer."""
    cut = []
    for where, prompt in zip(found.sequences(), found.prompts.tolist(), strict=True):
        ends = (found.ids[where.start + prompt : where.stop] == 2).nonzero()
        stop = min(where.stop, where.start + prompt + int(ends[0]) + 1 + PAST_THE_END) if len(ends) else where.stop
        cut.append(Span(where.start, stop, prompt))
    return [span for span in cut if span.anchors > 0]


def batches(found: Answered, anchors: int, seed: int, workers: int = 2) -> Iterator[Callable[[], Batch]]:
    """Endless passes in batches of about `anchors` places, in parts for the workers."""
    kept, epoch = spans(found), 0
    while True:
        rng = random.Random(f"{seed}/{epoch}/rows")  # noqa: S311
        order = sorted(kept, key=lambda s: (s.anchors // 6, s.stop - s.start + 12 * rng.random()))
        groups: list[list[Span]] = [[]]
        for span in order:
            if sum(s.anchors for s in groups[-1]) >= anchors:
                groups.append([])
            groups[-1].append(span)
        rng.shuffle(groups)
        for group in groups:
            yield partial(parts, found, group, workers)
        epoch += 1


def parts(found: Answered, group: list[Span], workers: int) -> Batch:
    """A batch in parts, dealt out so that each has as much to do."""
    total = sum(span.anchors for span in group)
    dealt = [group[i::workers] for i in range(workers)]
    return [_rows(found, part, total) for part in dealt if part], total


def _rows(found: Answered, part: list[Span], total: int) -> Rows:
    width, most = max(s.stop - s.start for s in part), max(s.anchors for s in part)
    ids = torch.zeros(len(part), width, dtype=torch.long)
    features = {n: torch.zeros(len(part), width, f.shape[1], dtype=f.dtype) for n, f in found.features.items()}
    for row, span in enumerate(part):
        size = span.stop - span.start
        ids[row, :size] = found.ids[span.start : span.stop]
        for name, feature in found.features.items():
            features[name][row, :size] = feature[span.start : span.stop]
    first = torch.tensor([s.prompt - 1 for s in part])[:, None]
    count = torch.tensor([s.anchors for s in part])[:, None]
    step = torch.arange(most)
    lengths = torch.tensor([s.stop - s.start for s in part])
    return Rows(ids, features, (first + step).clamp_max(width - 1), step < count, lengths, total)
