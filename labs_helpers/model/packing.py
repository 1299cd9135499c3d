"""From documents to batches: token ids with loss weights, packed into rows without wasting room."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from labs_helpers.model.corpus import Document
from labs_helpers.model.tokenizer import TURN_END, TURN_START

if TYPE_CHECKING:
    import torch

PROMPT_WEIGHT = 0.1
"""Weight of a token the model reads, against 1 for a token it is to write."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a document and, for each, the weight of predicting it (the first is never predicted).

    From index `gap_at` on, positions are counted `gap` higher."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    gap_at: int = 0
    gap: int = 0


def encode(tokenizer: Any, document: Document, prompt_weight: float = PROMPT_WEIGHT) -> Encoded:
    """Encode as the chat template does; the assistant's words and its end-of-turn carry the full weight."""
    ids: list[int] = []
    weights: list[float] = []

    def add(text: str, weight: float) -> None:
        new = tokenizer.encode(text).ids
        ids.extend(new)
        weights.extend([weight] * len(new))

    for role, content in document.turns:
        add(f"{TURN_START}{role}\n", prompt_weight)
        # content and marker separately: special tokens are cut out first, so this is how the whole text is cut too
        add(f"{content}{TURN_END}", 1.0 if role == "assistant" else prompt_weight)
        add("\n", 0.0)
    return Encoded(tuple(ids), tuple(weights))


def with_gaps(documents: Iterable[Encoded], positions: int, share: float, seed: int) -> Iterator[Encoded]:
    """Part some documents in two by a jump in their positions, so that short rows teach what lies far back.

    A `share` of the documents gets one jump, at any place, of log-uniform size that keeps the document below
    `positions` (positional skip-wise training, Zhu et al. 2023, arXiv 2309.10400, section 3.2).
    """
    rng = random.Random(f"{seed}/gaps")  # noqa: S311 - a corpus, not a secret
    for document in documents:
        size = len(document.ids)
        if size < positions // 2 and rng.random() < share:
            gap = round(math.exp(rng.uniform(0.0, math.log(positions - size))))
            yield replace(document, gap_at=rng.randrange(1, size), gap=gap)
        else:
            yield document


def pack(documents: Iterable[Encoded], width: int, open_rows: int = 16) -> Iterator[list[Encoded]]:
    """Group documents into rows of at most `width` tokens; longer ones are left out.

    Keeps a few rows open and puts a document into the fullest that still has room.
    """
    rows: list[tuple[int, list[Encoded]]] = []
    for document in documents:
        size = len(document.ids)
        if size > width:
            continue
        fitting = [i for i, (used, _) in enumerate(rows) if used + size <= width]
        if fitting:
            best = max(fitting, key=lambda i: rows[i][0])
            rows[best] = (rows[best][0] + size, [*rows[best][1], document])
        else:
            rows.append((size, [document]))
        if len(rows) > open_rows:
            fullest = max(range(len(rows)), key=lambda i: rows[i][0])
            yield rows.pop(fullest)[1]


@dataclass(frozen=True)
class Batch:
    """Rows of one width. ids, positions: int64 [rows, width]; weights: float32 [rows, width] for predicting ids at
    the same index; mask: additive float32 [rows, 1, width, width], or None for plain causal attention."""

    ids: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor | None


def packed_batch(rows: list[list[Encoded]], width: int) -> Batch:
    """Rows in which each document sees only itself and counts its positions from zero."""
    import torch

    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    owner = torch.full((len(rows), width), -1)
    weights = torch.zeros(len(rows), width)
    for r, row in enumerate(rows):
        at = 0
        for n, document in enumerate(row):
            span = slice(at, at + len(document.ids))
            ids[r, span] = torch.tensor(document.ids)
            positions[r, span] = torch.arange(len(document.ids))
            positions[r, at + document.gap_at : at + len(document.ids)] += document.gap
            weights[r, span] = torch.tensor(document.weights)
            weights[r, at] = 0.0
            owner[r, span] = n
            at += len(document.ids)
    allowed = (owner[:, :, None] == owner[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(len(rows), 1, width, width).masked_fill(~allowed[:, None], torch.finfo(torch.bfloat16).min)
    return Batch(ids, positions, weights, mask)


def long_batch(documents: list[Encoded], width: int) -> Batch:
    """One long document per row, cut or padded to `width`, attended causally."""
    import torch

    ids = torch.zeros(len(documents), width, dtype=torch.long)
    weights = torch.zeros(len(documents), width)
    for r, document in enumerate(documents):
        size = min(width, len(document.ids))
        ids[r, :size] = torch.tensor(document.ids[:size])
        weights[r, :size] = torch.tensor(document.weights[:size])
    weights[:, 0] = 0.0
    return Batch(ids, torch.arange(width).expand(len(documents), -1), weights, None)
