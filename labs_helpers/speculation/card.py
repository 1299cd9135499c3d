"""The drafts' card: how each was trained and how often it is right, written from measurements, not by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import WEIGHTS
from labs_helpers.model.spec import draft_dir
from labs_helpers.results import write_atomically
from labs_helpers.speculation import accuracy
from labs_helpers.speculation.training import DRAFTS

CARD = WEIGHTS / "DRAFTS.md"
BEGIN, END = "## Training\n", "## Limits\n"
KNOWN_PROMPTS = 4096
"""Training prompts whose answers' 8-grams are compared with."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of all drafts: accuracy by draft and class of text, and what of the texts training has seen."""

    accuracy: Mapping[str, tuple[accuracy.Accuracy, ...]]
    known: Mapping[str, float]
    """Share of each class's 8-grams that occur in answers the drafts were trained on."""
    answers: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        return {
            "accuracy": {name: [one.as_dict() for one in rows] for name, rows in self.accuracy.items()},
            "known": dict(self.known),
            "answers": dict(self.answers),
        }

    def __str__(self) -> str:
        return "\n\n".join(_tables(self))


def evaluate(shards: list[Path], n: int = 96) -> Evaluation:
    """Measure every shipped draft on `n` held-out prompts of each class.

    Args:
        shards: the answers they were trained on, as `features.collect` left them.

    Raises:
        LabsError: a draft is missing.
    """
    from labs_helpers.speculation import features

    texts = {kind: accuracy.answered(kind, n) for kind in accuracy.CLASSES}
    trained = accuracy.grams(accuracy.answers(features.load(shards, ())))
    found = {}
    for name in DRAFTS:
        hits = accuracy.hits_of(name, draft_dir(name))
        found[name] = tuple(accuracy.measure(kind, answered, hits) for kind, answered in texts.items())
    known = {kind: accuracy.known_share(answered, trained) for kind, answered in texts.items()}
    return Evaluation(found, known, {kind: len(answered.lengths) for kind, answered in texts.items()})


def update(found: Evaluation, card: Path = CARD) -> None:
    """Replace the card's chapters from its training up to its limits.

    Raises:
        LabsError: the card lacks one of the two headings, or cannot be written; it stays as it was.
    """
    text = card.read_text()
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise LabsError(f"{card} has no {BEGIN.strip()!r} before {END.strip()!r}", "restore it with `git checkout`")
    before, _, rest = text.partition(BEGIN)
    measured = "\n\n".join([_training(), "## Evaluation", *_tables(found)])
    write_atomically(card, f"{before}{BEGIN}{measured}\n\n{END}{rest.partition(END)[2]}")


def _training() -> str:
    rows = []
    for name in DRAFTS:
        note = json.loads((draft_dir(name) / "training.json").read_text())
        for amount in ("steps", "tokens", "seconds"):
            note[amount] += note.get("before", {}).get(amount, 0)
        size = (draft_dir(name) / "model.safetensors").stat().st_size / 1e6
        rows.append(
            f"| {name} | {note['parameters']:,} | {size:.1f} MB | {note['steps']:,} | {note['tokens'] / 1e6:.2f} M | "
            f"{note['seconds'] / 60:.1f} min | {note['loss']:.3f} |"
        )
    head = "| draft | trained weights | bf16 | steps | places seen | time | last loss |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _tables(found: Evaluation) -> list[str]:
    depth = max(len(one.top1) for rows in found.accuracy.values() for one in rows)
    head = "| draft, text | " + " | ".join(str(d + 1) for d in range(depth)) + " | tokens per step of the whole chain |"
    lines = [head, "|---" * (depth + 2) + "|"]
    for name, rows in found.accuracy.items():
        for one in rows:
            cells = [f"{rate:.3f}" for rate in one.top1] + [""] * (depth - len(one.top1))
            lines.append(f"| {name}, {one.text} | " + " | ".join(cells) + f" | {one.walked:.2f} |")
    known = ["| text | answers | 8-grams that training has seen |", "|---|---|---|"]
    known += [f"| {kind} | {found.answers[kind]} | {100 * share:.0f}% |" for kind, share in found.known.items()]
    return ["Share of right tokens at each depth of a chain:", "\n".join(lines), "\n".join(known)]
