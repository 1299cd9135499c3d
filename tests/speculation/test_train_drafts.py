"""Drafts are trained from the model's own answers: seeded, resumable, and from prompts that tests never see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.errors import LabsError
from labs_helpers.model.prompts import prompts_by_class
from labs_helpers.speculation import features, fitting, train_draft, train_eagle, train_eagle3, train_medusa, training
from labs_helpers.speculation.features import calibration_prompts, training_prompts

STEPS = {"medusa": train_medusa, "eagle3": train_eagle3, "eagle": train_eagle, "draft": train_draft}
PROMPTS = 32
SCALE = PROMPTS / features.TRAINING_PROMPTS


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the answers are kept; made once."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch, build: Path) -> None:
    monkeypatch.setattr(training, "ROOT", build)
    monkeypatch.setattr(features, "NEW_TOKENS", 24)
    for module in STEPS.values():
        monkeypatch.setattr(module, "STEPS", round(4 / SCALE))
        size = "POSITIONS_PER_STEP" if module is train_medusa else "ANCHORS_PER_STEP"
        monkeypatch.setattr(module, size, 64)
    monkeypatch.setattr("labs_helpers.speculation.calibration.write_calibration", lambda *_: None)


def run(name: str, out: Path, **options: Any) -> training.Trained:
    return training.train(name, out, scale=SCALE, threads=2, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", training.DRAFTS)
def test_an_interrupted_run_goes_on_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(name, tmp_path / "whole")
    assert whole.fit.steps == 4 and not (tmp_path / "whole" / "training.pt").exists()
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    kept, saved = fitting.save_checkpoint, []

    def stop_after_the_second(state: dict[str, Any], path: Path) -> None:
        kept(state, path)
        saved.append(state["step"])
        if saved == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "save_checkpoint", stop_after_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(name, tmp_path / "cut")
    with pytest.raises(LabsError, match="another run"):
        run(name, tmp_path / "cut", seed=1)
    run(name, tmp_path / "cut")
    assert saved == [1, 2, 3, 4, 4]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_medusa_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough steps over the same few answers bring the loss far down."""
    first = run("medusa", tmp_path / "few").fit.loss
    monkeypatch.setattr(train_medusa, "STEPS", round(60 / SCALE))
    assert run("medusa", tmp_path / "more").fit.loss < 0.4 * first


def test_there_is_no_such_draft(tmp_path: Path) -> None:
    with pytest.raises(LabsError, match="no draft 'eagel'"):
        run("eagel", tmp_path)


def test_training_calibration_and_held_out_prompts_are_disjoint() -> None:
    """Whole conversations are compared, by their first question."""
    from labs_helpers.model.spec import shipped_dir
    from labs_helpers.model.tokenizer import TURN_END, TURN_START, fast_tokenizer

    tokenizer = fast_tokenizer(shipped_dir())

    def questions(prompts: list[features.Prompt]) -> set[str]:
        texts = (tokenizer.decode(list(p.ids), skip_special_tokens=False) for p in prompts)
        return {t.partition(f"{TURN_START}user\n")[2].partition(TURN_END)[0] for t in texts}

    training_side, calibration = questions(training_prompts(1500)), questions(calibration_prompts())
    held_out = {*prompts_by_class("seen-like", 40), *prompts_by_class("slot-bearing", 40)}
    assert len(training_side) == 1500 and len(calibration) == 384
    assert not training_side & calibration
    assert not (training_side | calibration) & held_out
