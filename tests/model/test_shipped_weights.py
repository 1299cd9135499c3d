"""What the model card claims of the shipped weights, measured again on a small held-out sample."""

from __future__ import annotations

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.corpus import FULL_MIX, documents, long_documents
from labs_helpers.model.evaluate import COPIED_KINDS, FILLED_KINDS, LONG_PREFIX
from labs_helpers.model.scoring import generate, load_model, score
from labs_helpers.model.spec import course_model_dir, model_spec, shipped_dir
from labs_helpers.model.tokenizer import fast_tokenizer, render_chat

COPIED_MIX = {k: FULL_MIX[k] for k in COPIED_KINDS}


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(shipped_dir())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return fast_tokenizer(shipped_dir())


def test_size_and_shape() -> None:
    tensors = load_file(shipped_dir() / "model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == SPEC.parameters <= 15_000_000
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    config = json.loads((shipped_dir() / "config.json").read_text())
    assert config["num_hidden_layers"] >= 10 and config["max_position_embeddings"] >= 4096
    assert config["rope_theta"] == SPEC.rope_theta  # where engines of both generations look for it
    spec = model_spec("bf16")
    assert spec.parameters == SPEC.parameters and spec.bytes_per_token == 2 * SPEC.parameters


def test_fp32_copy_holds_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_CACHE", str(tmp_path))
    wide = load_file(course_model_dir("fp32") / "model.safetensors")
    for name, tensor in load_file(shipped_dir() / "model.safetensors").items():
        assert wide[name].dtype == torch.float32 and torch.equal(wide[name], tensor.float())
    with pytest.raises(LabsError, match="fp8"):
        course_model_dir("fp8")  # type: ignore[arg-type]


def test_held_out_values_are_copied(model: Any, tokenizer: Any) -> None:
    answers = [a for d in islice(documents(101, COPIED_MIX, held_out=True), 150) for a in score(model, tokenizer, d)]
    assert len(answers) > 200 and sum(a.exact for a in answers) / len(answers) >= 0.8
    filled = [a.exact for a in answers if a.kind in FILLED_KINDS]
    assert sum(filled) / len(filled) >= 0.9


def test_commands_are_filled_from_the_prompt(model: Any, tokenizer: Any) -> None:
    wanted = {"serve": 1.0, "request_body": 1.0, "url": 1.0}
    answers = [a for d in islice(documents(103, wanted, held_out=True), 40) for a in score(model, tokenizer, d)]
    assert sum(a.exact for a in answers) / len(answers) >= 0.9


def test_exactness_under_teacher_forcing_is_what_greedy_generation_writes(model: Any, tokenizer: Any) -> None:
    for document in islice(documents(5, {"url": 1.0, "fill_json": 1.0}, held_out=True), 4):
        first = score(model, tokenizer, document)[0]
        prompt = document.turns[: next(i for i, (role, _) in enumerate(document.turns) if role == "assistant")]
        written = generate(model, tokenizer, tokenizer.encode(render_chat(prompt)).ids)
        assert (written == first.text) == first.exact


def test_deep_in_a_context_it_still_copies(model: Any, tokenizer: Any) -> None:
    """After 2,048 tokens most values are copied, and true answers cost far less than chance (ln 2048)."""
    answers = []
    for document in islice(long_documents(102, COPIED_MIX, 2700, held_out=True), 3):
        answers += [a for a in score(model, tokenizer, document) if a.start >= LONG_PREFIX]
    assert len(answers) >= 20
    assert sum(a.loss * a.tokens for a in answers) / sum(a.tokens for a in answers) < 0.05 * math.log(SPEC.vocabulary)
    assert sum(a.exact for a in answers) / len(answers) >= 0.7
