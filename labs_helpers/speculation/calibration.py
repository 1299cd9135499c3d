"""What a Medusa tree is chosen from: how often each head's best, second best, ... token is right, on its own prompts.

Cai et al. 2024, arXiv 2401.10774, section 2.3.3, choose the tree from such accuracies on a calibration set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labs_helpers.results import write_atomically
from labs_helpers.speculation.features import Frozen, answer, calibration_prompts
from labs_helpers.speculation.medusa_heads import MedusaHeads

RANKS = 10
FILE = "calibration.json"


def calibrate(heads: MedusaHeads, n: int = 384) -> dict[str, Any]:
    """Accuracies over every place of the answers to `n` calibration prompts, which occur in no training set.

    `accuracy[i][r]`: the share of places where the model's token is head i's choice of rank r (0 the best);
    `top1[i]` is `accuracy[i][0]`; `prompts` and `places` say how many there were.
    """
    from labs_helpers.speculation.accuracy import ranks
    from labs_helpers.speculation.rows import spans

    found = answer(Frozen(dtype="float32"), calibration_prompts(n))
    all_ranks = ranks(heads, found)
    accuracy = []
    for head in range(heads.heads):
        rows, at = [], 0
        for span in spans(found):  # the answer must go on as far as the head looks
            rows.append(all_ranks[at : at + max(0, span.anchors - head), head])
            at += span.anchors
        places = [rank for row in rows for rank in row.tolist()]
        accuracy.append([round(sum(rank == r for rank in places) / len(places), 4) for r in range(RANKS)])
    return {
        "top1": [rates[0] for rates in accuracy],
        "accuracy": accuracy,
        "prompts": len(found.lengths),
        "places": len(all_ranks),
    }


def write_calibration(heads: MedusaHeads, folder: Path) -> None:
    """Write `calibration.json` beside the heads."""
    text = json.dumps(calibrate(heads)).replace("], [", "],\n  [")
    write_atomically(folder / FILE, text + "\n")
