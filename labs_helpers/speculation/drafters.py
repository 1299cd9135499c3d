"""The drafters by name, with the course's weights and the settings that served them best."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError
from labs_helpers.model.spec import draft_dir
from labs_helpers.speculation.tree import Tree, choose_tree

if TYPE_CHECKING:
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft
    from labs_helpers.speculation.eagle_draft import EagleDraft
    from labs_helpers.speculation.eagle_drafter import Eagle
    from labs_helpers.speculation.lookup import PromptLookup
    from labs_helpers.speculation.medusa_drafter import Medusa
    from labs_helpers.speculation.medusa_heads import MedusaHeads
    from labs_helpers.speculation.model_drafter import DraftModel
    from labs_helpers.speculation.packed import WeightType
    from labs_helpers.speculation.target import Target
    from labs_helpers.speculation.transformers_loop import HfAssisted


def weights_dir(name: str) -> Path:
    """Where the weights of `medusa`, `eagle`, `eagle3` or `draft` are: shipped, or below LABS_DRAFTS.

    Raises:
        LabsError: they are not there.
    """
    elsewhere = os.environ.get("LABS_DRAFTS")
    if not elsewhere:
        return draft_dir(name)
    folder = Path(elsewhere) / name
    if not (folder / "model.safetensors").is_file():
        raise LabsError(
            f"there are no weights of {name}: no {folder / 'model.safetensors'}", "set LABS_DRAFTS to another folder"
        )
    return folder


def prompt_lookup(ngram: int = 3, length: int = 4) -> PromptLookup:
    """Copies what followed the last `ngram` tokens earlier in prompt or answer; no model at all."""
    from labs_helpers.speculation.lookup import PromptLookup

    return PromptLookup(ngram, length)


def draft_model(target: Target, length: int = 4, folder: Path | None = None, kind: WeightType = "int8") -> DraftModel:
    """The course's small Llama, or the one in `folder`, writes `length` tokens ahead."""
    from labs_helpers.speculation.model_drafter import DraftModel

    return DraftModel(folder or weights_dir("draft"), length, kind, target.threads)


def hf_assisted(length: int = 4, folder: Path | None = None) -> HfAssisted:
    """transformers' own `assistant_model` with the course's small Llama, for `measure`: a loop of its own."""
    from labs_helpers.speculation.transformers_loop import HfAssisted

    return HfAssisted(folder or weights_dir("draft"), length)


def medusa(
    target: Target,
    nodes: int = 5,
    tree: Tree | Sequence[Sequence[int]] | None = None,
    heads: MedusaHeads | None = None,
    kind: WeightType = "int8",
    grows: bool = False,
) -> Medusa:
    """Medusa's heads over a static tree of `nodes` drafted nodes, chosen from the accuracies measured on calibration
    prompts.

    Args:
        tree: another tree, or Medusa's paths of ranks.
        heads: other heads, for instance just trained ones; without `tree` they draft a chain.
        kind: how the heads' weights are held while they run.
        grows: choose a tree of as many nodes anew in every round, by the heads' probabilities.

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
    with target.running():
        return Medusa(heads, tree or Tree.chain(min(nodes, heads.heads)), kind, grows)


def eagle(target: Target, depth: int = 5, draft: EagleDraft | None = None, kind: WeightType = "int8") -> Eagle:
    """EAGLE, the first: a chain of `depth` tokens from the target's last hidden state.

    Raises:
        LabsError: the weights are missing.
    """
    from labs_helpers.speculation.eagle_draft import EagleDraft
    from labs_helpers.speculation.eagle_drafter import Eagle
    from labs_helpers.speculation.eagle_runtime import eagle_layer

    draft = draft or EagleDraft.load(weights_dir("eagle"))
    with target.running():
        return Eagle("eagle", target, eagle_layer(draft, target, kind), depth)


def eagle3(
    target: Target,
    depth: int = 5,
    topk: int = 1,
    nodes: int | None = None,
    draft: Eagle3Draft | None = None,
    kind: WeightType = "int8",
    confident: float = 0.0,
    expand: int | None = None,
) -> Eagle:
    """EAGLE-3: a chain of `depth` tokens, or with `topk` and `nodes` a tree that grows where the draft is confident.

    Args:
        topk: candidates after each expanded node.
        expand: nodes expanded per step, topk by default; 1 drafts as cheaply as a chain.
        nodes: drafted nodes that are verified.
        draft: another draft, for instance a just trained one.
        confident: end a chain when its probability falls below this.

    Raises:
        LabsError: the weights are missing.
    """
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft
    from labs_helpers.speculation.eagle_drafter import Eagle
    from labs_helpers.speculation.eagle_runtime import eagle3_layer
    from labs_helpers.speculation.features import TAPS

    draft = draft or Eagle3Draft.load(weights_dir("eagle3"))
    with target.running():
        return Eagle("eagle3", target, eagle3_layer(draft, target, TAPS, kind), depth, topk, nodes, confident, expand)


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
