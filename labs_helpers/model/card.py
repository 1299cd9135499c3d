"""The measured part of the model card, written from an evaluation so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from labs_helpers.errors import LabsError
from labs_helpers.model.evaluate import FILLED_KINDS, FOUND_KINDS, LONG_PREFIX, Evaluation
from labs_helpers.results import write_atomically

BEGIN, END = "## Evaluation\n", "## Limits\n"
LOSSES = {
    "seen-like": "seen-like (held-out questions on known concepts)",
    "slot-bearing": "slot-bearing (held-out values)",
    "after 2k tokens": f"after {LONG_PREFIX:,} tokens or more",
    "off-domain": "off-domain (plain text)",
}


def update(card: Path, found: Evaluation) -> None:
    """Replace the card's chapters from its evaluation up to its limits.

    Raises:
        LabsError: the card lacks one of the two headings, or cannot be written; it stays as it was.
    """
    text = card.read_text()
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise LabsError(f"{card} has no {BEGIN.strip()!r} before {END.strip()!r}", "restore it with `git checkout`")
    before, _, rest = text.partition(BEGIN)
    write_atomically(card, before + BEGIN + measured(found) + END + rest.partition(END)[2])


def measured(found: Evaluation) -> str:
    """Losses, exact answers and samples in Markdown."""
    exact = [
        ("values of the prompt filled in", found.copied(FILLED_KINDS)),
        ("the right one of several found", found.copied(FOUND_KINDS)),
        (f"after {LONG_PREFIX:,} tokens or more", found.long_prefix),
        *((f"{kind}, alone", rate) for kind, rate in found.slots.items()),
    ]
    parts = [
        "fp32, held-out documents only: `./labs model evaluate --card`. An answer is exact when greedy decoding\n"
        "writes every token of it, its end included.",
        _table("loss, nats per answer token", ((LOSSES[k], f"{loss:.3f}") for k, loss in found.answer_loss.items())),
        _table("exact answers", exact),
        _table("exact answers by kind of document", found.copying.items()),
        "## Samples (greedy, held-out prompts)",
        *(f"**{s.title}**\n\n~~~text\n{s.prompt}\n~~~\n~~~text\n{s.answer}\n~~~" for s in found.samples),
    ]
    return "\n\n".join(parts) + "\n\n"


def _table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
