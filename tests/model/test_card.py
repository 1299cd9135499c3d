"""The model card's figures come from an evaluation and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs_helpers.errors import LabsError
from labs_helpers.model import card
from labs_helpers.model.evaluate import Evaluation, Rate, Sample

FOUND = Evaluation(
    answer_loss={"seen-like": 0.1, "slot-bearing": 0.25, "after 2k tokens": 0.3, "off-domain": 9.0},
    copying={"serve": Rate(3, 4), "url": Rate(1, 4), "lookup": Rate(1, 8)},
    slots={"port": Rate(2, 3)},
    long_prefix=Rate(5, 10),
    samples=(Sample("explain", "What is a block?", "A page of the cache."),),
)


def test_the_figures_replace_the_old_ones_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "MODEL_CARD.md"
    path.write_text("# Model\n\n## Evaluation\nold figures\n\n## Samples\nold\n\n## Limits\nNone.\n")
    card.update(path, FOUND)
    text = path.read_text()
    assert text.startswith("# Model\n\n## Evaluation\n") and text.endswith("## Limits\nNone.\n")
    assert "old" not in text
    assert "| slot-bearing (held-out values) | 0.250 |" in text
    assert "| values of the prompt filled in | 4/8 (50%) |" in text
    assert "| the right one of several found | 1/8 (12%) |" in text
    assert "A page of the cache." in text
    card.update(path, FOUND)
    assert path.read_text() == text


def test_a_card_without_the_headings_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "MODEL_CARD.md"
    path.write_text("# Model\n")
    with pytest.raises(LabsError, match="Evaluation"):
        card.update(path, FOUND)
    assert path.read_text() == "# Model\n"
