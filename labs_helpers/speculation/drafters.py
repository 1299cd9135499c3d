"""The drafters by name, with the course's weights and the settings that served them best."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import WEIGHTS
from labs_helpers.speculation.tree import Tree, choose_tree

if TYPE_CHECKING:
    from labs_helpers.speculation.draft_model import DraftModel
    from labs_helpers.speculation.lookup import PromptLookup
    from labs_helpers.speculation.medusa_drafter import Medusa
    from labs_helpers.speculation.medusa_heads import MedusaHeads
    from labs_helpers.speculation.packed import WeightType
    from labs_helpers.speculation.target import Target


def weights_dir(name: str) -> Path:
    """Where the weights of `medusa`, `eagle`, `eagle3` or `draft` are: shipped, or below LABS_DRAFTS.

    Raises:
        LabsError: they are not there.
    """
    folder = Path(os.environ.get("LABS_DRAFTS") or WEIGHTS) / name
    if not (folder / "config.json").is_file():
        raise LabsError(
            f"there are no weights of {name}: no {folder}",
            f"restore them with `git checkout`, or train them: ./labs model train {name}",
        )
    return folder


def prompt_lookup(ngram: int = 3, length: int = 4) -> PromptLookup:
    """Copies what followed the last `ngram` tokens earlier in prompt or answer; no model at all."""
    from labs_helpers.speculation.lookup import PromptLookup

    return PromptLookup(ngram, length)


def draft_model(target: Target, length: int = 4, folder: Path | None = None) -> DraftModel:
    """The course's small Llama, or the one in `folder`, writes `length` tokens ahead."""
    from labs_helpers.speculation.draft_model import DraftModel

    return DraftModel(folder or weights_dir("draft"), length)


def medusa(
    target: Target,
    nodes: int = 5,
    tree: Tree | Sequence[Sequence[int]] | None = None,
    heads: MedusaHeads | None = None,
    kind: WeightType = "int8",
) -> Medusa:
    """Medusa's heads over a static tree of `nodes` drafted nodes, chosen from the accuracies measured on calibration
    prompts.

    Args:
        tree: another tree, or Medusa's paths of ranks.
        heads: other heads, for instance just trained ones; without `tree` they draft a chain.
        kind: how the heads' weights are held while they run.

    Raises:
        LabsError: the weights or their accuracies are missing, or the tree needs more heads.
    """
    from labs_helpers.speculation.medusa_drafter import Medusa
    from labs_helpers.speculation.medusa_heads import MedusaHeads

    if tree is not None and not isinstance(tree, Tree):
        tree = Tree.from_paths(tree)
    if heads is None:
        folder = weights_dir("medusa")
        heads = MedusaHeads.load(folder)
        tree = tree or choose_tree(calibrated_accuracy(folder), nodes)
    return Medusa(heads, tree or Tree.chain(min(nodes, heads.heads)), kind)


def calibrated_accuracy(folder: Path) -> list[list[float]]:
    """accuracy[head][rank] as measured on calibration prompts, from `calibration.json`.

    Raises:
        LabsError: it is missing or not what it should be.
    """
    try:
        found: list[list[float]] = json.loads((folder / "calibration.json").read_text())["accuracy"]
    except (OSError, ValueError, KeyError) as error:
        raise LabsError(
            f"{folder} has no accuracies of its heads: {error}", "train the heads: ./labs model train medusa"
        ) from error
    return found
