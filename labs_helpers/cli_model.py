"""`labs model`: the course model, for authors."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from labs_helpers.cli_options import Json
from labs_helpers.paths import ROOT


class Trainable(StrEnum):
    """What `labs model train` trains."""

    course = "course"
    medusa = "medusa"
    eagle3 = "eagle3"
    eagle = "eagle"
    draft = "draft"


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Authors: the course model.")


@app.command("train")
def train(
    what: Annotated[
        Trainable, typer.Argument(help="the course model, or one of its drafts, which learn from its own answers")
    ] = Trainable.course,
    out: Annotated[
        Path | None, typer.Option(help="folder for checkpoints and weights; by default build/model or build/DRAFT")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--from", help="a finished folder to go on from: course with long rows, eagle3 with its second part"
        ),
    ] = None,
    seed: int = 0,
    scale: Annotated[float, typer.Option(min=0.001, help="share of the recipe's steps, for a trial")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint.")] = True,
) -> None:
    """Train the course model from its corpus, or a draft from the course model; resumable, seeded."""
    if what is Trainable.course:
        from labs_helpers.model import train

        print(train.train(out or ROOT / "build" / "model", seed=seed, scale=scale, resume=resume, weights=weights))
        return
    from labs_helpers.speculation import training

    folder = out or ROOT / "build" / what.value
    print(training.train(what.value, folder, seed=seed, scale=scale, resume=resume, weights=weights))


@app.command("evaluate")
def evaluate(
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the model card.")] = False,
    drafts: Annotated[bool, typer.Option("--drafts", help="The drafts instead of the course model.")] = False,
    as_json: Json = False,
) -> None:
    """Held-out loss, slot copying and samples of the shipped model; of the drafts, how often they are right."""
    from labs_helpers.model import spec

    if drafts:
        from labs_helpers.speculation import card as drafts_card
        from labs_helpers.speculation import training

        measured = drafts_card.evaluate(training.answers())
        print(json.dumps(measured.as_dict(), indent=1) if as_json else measured)
        if card:
            drafts_card.update(measured)
        return
    from labs_helpers.model import card as model_card
    from labs_helpers.model import evaluate

    found = evaluate.evaluate()
    print(json.dumps(found.as_dict(), indent=1) if as_json else found)
    if card:
        model_card.update(spec.shipped_dir() / "MODEL_CARD.md", found)
