"""Training is seeded, goes on after an interruption, and leaves a folder that loads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.errors import LabsError
from labs_helpers.model import checkpoint, train
from labs_helpers.model.architecture import Architecture
from labs_helpers.model.corpus import COPY_MIX
from labs_helpers.model.initial import new_model
from labs_helpers.model.packing import Encoded, packed_batch
from labs_helpers.model.parallel import Workers
from labs_helpers.model.tokenizer import load_tokenizer
from labs_helpers.model.train import Stage, rates

SMALL = Architecture(
    vocabulary=600, hidden=64, layers=2, feed_forward=64, heads=4, kv_heads=2, head_dim=16, positions=256
)
STAGES = (Stage("drills", COPY_MIX, 4, width=128), Stage("long", COPY_MIX, 2, width=128, long_every=2, long_width=256))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real training loop on steps of 256 tokens and a network of a few ten thousand weights."""
    monkeypatch.setattr(train, "TOKENS_PER_STEP", 256)
    monkeypatch.setattr(train, "TOKENIZER_DOCUMENTS", 300)


def run(out: Path, **options: Any) -> train.TrainReport:
    return train.train(out, stages=STAGES, spec=SMALL, threads=2, compiled=False, **options)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    reports = [run(tmp_path / str(i), seed=1) for i in range(2)]
    a, b = (load_file(r.folder / "model.safetensors") for r in reports)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert reports[0].final_loss == reports[1].final_loss
    assert reports[0].steps == 6 and reports[0].tokens == 5 * 256 + 2 * SMALL.positions  # one step is two long rows


def test_the_finished_folder_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = run(tmp_path / "model").folder
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and model.lm_head.weight is model.model.embed_tokens.weight
    ids = load_tokenizer(folder)("vLLM on port 8000", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], SMALL.vocabulary)
    assert not (folder / "training.pt").exists()


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_file(run(tmp_path / "whole").folder / "model.safetensors")
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    real, calls = train.weighted_loss, []

    def stop_in_the_fourth_step(model: Any, batch: Any, total: float) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 7:  # two shares a step
            raise KeyboardInterrupt
        return real(model, batch, total)

    monkeypatch.setattr(train, "weighted_loss", stop_in_the_fourth_step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert (tmp_path / "cut" / "training.pt").exists()
    monkeypatch.setattr(train, "weighted_loss", real)
    resumed = load_file(run(tmp_path / "cut").folder / "model.safetensors")
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    checkpoint.save_checkpoint({"recipe": "other"}, tmp_path / "training.pt")
    with pytest.raises(LabsError, match="another run"):
        run(tmp_path)
    (tmp_path / "training.pt").write_bytes(b"half a file")
    with pytest.raises(LabsError, match="not a checkpoint"):
        run(tmp_path)


def test_a_run_goes_on_from_finished_weights(tmp_path: Path) -> None:
    """At a rate of nothing, what comes out is what went in; with another architecture or no model it is refused."""
    first = run(tmp_path / "first").folder
    still = (replace(STAGES[1], rate=(0.0, 0.0)),)
    options: dict[str, Any] = {"stages": still, "threads": 2, "compiled": False}
    second = train.train(tmp_path / "second", weights=first, spec=SMALL, **options).folder
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    with pytest.raises(LabsError, match="another architecture"):
        train.train(tmp_path / "third", weights=first, spec=replace(SMALL, hidden=32), **options)
    with pytest.raises(LabsError, match="holds no model"):
        train.train(tmp_path / "third", weights=tmp_path / "absent", spec=SMALL, **options)
    with pytest.raises(LabsError, match="are both"):
        train.train(first, weights=first, spec=SMALL, **options)
    (first / "tokenizer.json").unlink()
    with pytest.raises(LabsError, match="no tokenizer"):
        train.train(tmp_path / "third", weights=first, spec=SMALL, **options)
    assert not (tmp_path / "third").exists()  # a run that is refused leaves nothing


def test_a_checkpoint_from_other_weights_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (run(tmp_path / name, seed=seed).folder for name, seed in (("first", 0), ("other", 1)))
    options: dict[str, Any] = {"stages": STAGES[1:], "threads": 2, "compiled": False, "spec": SMALL}
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.delattr(train, "write_model")  # the run ends before its last act
        with pytest.raises(NameError):
            train.train(tmp_path / "second", weights=first, **options)
    with pytest.raises(LabsError, match="belongs to another run"):
        train.train(tmp_path / "second", weights=other, **options)


def test_the_rate_warms_up_and_falls_without_a_jump() -> None:
    shares = rates(train.STAGES)
    assert len(shares) == sum(stage.steps for stage in train.STAGES)
    assert shares[0] <= 0.05 and max(shares) == 1.0 and shares[-1] <= 0.02
    falling = shares[train.WARMUP_STEPS :]
    assert falling == sorted(falling, reverse=True)
    assert all(after >= 0.9 * before for before, after in pairwise(falling))


def test_threads_share_one_gradient() -> None:
    """The gradient that several threads sum up is the gradient of the whole batch."""
    model = new_model(0, SMALL)
    rows = [[Encoded(tuple(range(3 + i, 60 + i)), (1.0,) * (57 - i) + (0.1,) * i)] for i in range(4)]
    batch = packed_batch(rows, 64)
    parameters = list(model.parameters())
    found = []
    for count in (1, 2):
        with Workers(count) as workers:
            loss = workers.backward(partial(train.weighted_loss, model), batch, parameters)
        found.append((loss, [p.grad.clone() for p in parameters]))
    (loss_1, grads_1), (loss_2, grads_2) = found
    assert loss_1 == pytest.approx(loss_2, rel=1e-3)
    for one, two in zip(grads_1, grads_2, strict=True):
        torch.testing.assert_close(one, two, rtol=0.05, atol=2e-3)  # bf16 products are summed in another order


def test_the_untrained_model_already_looks_back() -> None:
    """The circuit put in at the start finds the former occurrence of a token: the model copies better than chance."""
    torch.manual_seed(0)
    model = new_model(0).eval()
    once = torch.randperm(2000)[:48] + 3
    ids = torch.cat([once, once])[None]
    with torch.inference_mode():
        logits = model(ids).logits[0]
    rank = (logits[48:-1] > logits[48:-1].gather(1, ids[0, 49:, None])).sum(-1)
    assert rank.float().median() < 40  # of 2,048
