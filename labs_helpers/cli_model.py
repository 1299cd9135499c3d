"""`labs model`: the course model, for authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labs_helpers.cli_options import Json
from labs_helpers.paths import ROOT

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Authors: the course model.")


@app.command("train")
def train(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and weights")] = ROOT / "build" / "model",
    weights: Annotated[
        Path | None, typer.Option("--from", help="a finished model's folder, to go on from it with long rows")
    ] = None,
    seed: int = 0,
    scale: Annotated[float, typer.Option(min=0.001, help="share of the recipe's steps, for a trial")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint.")] = True,
) -> None:
    """Train the course model from its corpus; resumable, seeded."""
    from labs_helpers.model import train

    print(train.train(out, seed=seed, scale=scale, resume=resume, weights=weights))


@app.command("evaluate")
def evaluate(
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the model card.")] = False,
    as_json: Json = False,
) -> None:
    """Held-out loss, slot copying and samples of the shipped model."""
    from labs_helpers.model import card as model_card
    from labs_helpers.model import evaluate, spec

    found = evaluate.evaluate()
    print(json.dumps(found.as_dict(), indent=1) if as_json else found)
    if card:
        model_card.update(spec.shipped_dir() / "MODEL_CARD.md", found)
