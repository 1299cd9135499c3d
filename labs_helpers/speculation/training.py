"""`labs model train medusa|eagle3|eagle|draft`: from the model's own answers to a draft in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.spec import content_hash, shipped_dir
from labs_helpers.paths import ROOT
from labs_helpers.results import write_atomically

if TYPE_CHECKING:
    import torch

    from labs_helpers.speculation.features import Answered
    from labs_helpers.speculation.fitting import Fit

DRAFTS = ("medusa", "eagle3", "eagle", "draft")
DRAFT_VOCABULARY = 1152
"""Tokens that Medusa and EAGLE-3 know: of 2,048, the others hardly occur in answers."""


@dataclass(frozen=True)
class Trained:
    """A finished draft and how it came to be."""

    folder: Path
    parameters: int
    prompts: int
    fit: Fit


def answers(seed: int = 0, n: int | None = None, threads: int | None = None) -> list[Path]:
    """The course model's answers to `n` training prompts, all by default: shards below build/, shared by all drafts.

    Made where they are not there: minutes on two cores.
    """
    from labs_helpers.speculation import features

    n = n or features.TRAINING_PROMPTS
    folder = ROOT / "build" / f"answers-{content_hash(shipped_dir())}-{seed}"
    part = folder if n == features.TRAINING_PROMPTS else folder / str(n)
    return features.collect(part, features.training_prompts(n, seed), threads=threads)


def draft_vocabulary(found: Answered, size: int = DRAFT_VOCABULARY) -> torch.Tensor:
    """int64 [size], ascending: the markers and the tokens most frequent in the model's answers."""
    import torch

    from labs_helpers.speculation.train_medusa import answer_weights

    weights = answer_weights(found)
    counts = torch.zeros(SPEC.vocabulary).index_add(0, found.ids[1:], weights[:-1])
    counts[:3] = counts.sum() + 1  # markers
    return counts.argsort(descending=True, stable=True)[:size].sort().values


def train(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    resume: bool = True,
    threads: int | None = None,
    weights: Path | None = None,
) -> Trained:
    """Train one draft and write it to `out`. Interrupted, it goes on where it was.

    Args:
        name: one of DRAFTS.
        weights: the folder of a finished EAGLE-3 draft to go on from with its recipe's second part.
        scale: multiplies prompts and steps; 1 is the shipped recipe.

    Raises:
        LabsError: no such draft; a checkpoint of another run is in `out`; or something cannot be written.
    """
    import torch

    from labs_helpers.speculation import features

    if name not in DRAFTS:
        raise LabsError(f"there is no draft {name!r}", f"drafts: {', '.join(DRAFTS)}")
    threads = threads or torch.get_num_threads()
    n = max(32, round(scale * features.TRAINING_PROMPTS))
    shards = answers(seed, n, threads)
    made = {"medusa": _medusa, "eagle3": _eagle3, "eagle": _eagle, "draft": _draft}[name]
    torch.manual_seed(seed)
    if weights and name != "eagle3":
        raise LabsError(f"{name} has a recipe of one part", "leave out --from")
    if weights and weights.resolve() == out.resolve():
        raise LabsError(f"--from and --out are both {out}", "name another --out; what --from names stays as it is")
    how = {"resume": resume, "threads": threads, "weights": weights}
    recipe = f"{name}, seed {seed}, scale {scale}, model {content_hash(shipped_dir())}, {n} prompts"
    if weights:
        recipe += f", from {content_hash(weights)}"
    module, fit, save = made(shards, seed, scale, out, {"recipe": recipe} | how)
    save(out)
    done = Trained(out, sum(p.numel() for p in module.parameters()), n, fit)
    note = {"seed": seed, "parameters": done.parameters, "prompts": done.prompts, **asdict(fit)}
    if weights:
        note["before"] = json.loads((weights / "training.json").read_text())
    write_atomically(out / "training.json", json.dumps(note, indent=1) + "\n")
    (out / "training.pt").unlink(missing_ok=True)
    return done


Made = tuple[Any, "Fit", Callable[[Path], None]]


def _steps(steps: int, scale: float) -> int:
    return max(2, round(steps * scale))


def _medusa(shards: list[Path], seed: int, scale: float, out: Path, how: dict[str, Any]) -> Made:
    del how["weights"]
    from labs_helpers.speculation import features, train_medusa
    from labs_helpers.speculation.calibration import write_calibration
    from labs_helpers.speculation.medusa_heads import MedusaHeads

    found = features.load(shards, ("final",))
    heads = MedusaHeads(draft_vocabulary(found), train_medusa.HEADS, train_medusa.LAYERS, shared=True)
    heads.start_from(features.Frozen().embedding.float())
    data = train_medusa.positions(found, heads.token_map, heads.heads, SPEC.vocabulary)
    fit = train_medusa.train(heads, data, steps=_steps(train_medusa.STEPS, scale), seed=seed, out=out, **how)

    def save(folder: Path) -> None:
        heads.save(folder)
        write_calibration(heads, folder)

    return heads, fit, save


def _eagle3(shards: list[Path], seed: int, scale: float, out: Path, how: dict[str, Any]) -> Made:
    from labs_helpers.speculation import features, train_eagle3
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft

    found = features.load(shards)
    weights = how.pop("weights")
    if weights:
        draft, steps = Eagle3Draft.load(weights).train(), train_eagle3.MORE_STEPS
        depth, peak = train_eagle3.MORE_DEPTH, train_eagle3.MORE_RATE
    else:
        draft, steps = Eagle3Draft(draft_vocabulary(found)), train_eagle3.STEPS
        depth, peak = train_eagle3.DEPTH, 1.0
        train_eagle3.start(draft, features.Frozen())
    steps = _steps(steps, scale)
    fit = train_eagle3.train(draft, found, steps=steps, seed=seed, out=out, depth=depth, peak=peak, **how)
    return draft, fit, draft.save


def _eagle(shards: list[Path], seed: int, scale: float, out: Path, how: dict[str, Any]) -> Made:
    del how["weights"]
    from labs_helpers.speculation import features, train_eagle
    from labs_helpers.speculation.eagle_draft import EagleDraft

    found = features.load(shards, ("final",))
    draft = EagleDraft()
    fit = train_eagle.train(draft, found, steps=_steps(train_eagle.STEPS, scale), seed=seed, out=out, **how)
    return draft, fit, draft.save


def _draft(shards: list[Path], seed: int, scale: float, out: Path, how: dict[str, Any]) -> Made:
    del how["weights"]
    from labs_helpers.model.checkpoint import write_model
    from labs_helpers.model.tokenizer import copy_tokenizer
    from labs_helpers.speculation import features, train_draft

    found = features.load(shards, ("final",))
    draft = train_draft.new_draft(seed)
    fit = train_draft.train(draft, found, steps=_steps(train_draft.STEPS, scale), seed=seed, out=out, **how)

    def save(folder: Path) -> None:
        write_model(draft.state_dict(), "bf16", folder, train_draft.DRAFT)
        copy_tokenizer(shipped_dir(), folder)

    return draft, fit, save
