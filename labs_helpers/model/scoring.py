"""Scoring one document or text under the model, and greedy continuation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.model.corpus import Document
from labs_helpers.model.packing import encode
from labs_helpers.model.tokenizer import TURN_END, TURN_START

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Answer:
    """One answer of a document, given the true text before it.

    `start` is its first token's index less one, `loss` nats per token. `exact` says that every token (the end marker
    included) is the model's first choice; by induction that is what greedy generation would write.
    """

    kind: str
    text: str
    start: int
    tokens: int
    loss: float
    exact: bool


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """The model in evaluation mode, without transformers' own progress bar, which goes to stderr."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def score(model: Any, tokenizer: Any, document: Document, limit: int = 4096) -> list[Answer]:
    """Every answer of a document that ends within `limit` tokens; one forward pass."""
    import torch
    from torch.nn import functional

    ids = torch.tensor([encode(tokenizer, document).ids[:limit]])
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    target = ids[0, 1:]
    losses, hits = functional.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target
    answers, at = [], 0
    for role, content in document.turns:
        head = len(tokenizer.encode(f"{TURN_START}{role}\n").ids)
        size = len(tokenizer.encode(f"{content}{TURN_END}").ids)
        start, end = at + head - 1, at + head - 1 + size  # shifted by one: index i predicts token i + 1
        if role == "assistant" and end <= len(target):
            answers.append(
                Answer(
                    document.kind, content, start, size, losses[start:end].mean().item(), bool(hits[start:end].all())
                )
            )
        at += head + size + 1
    return answers


def value_kind(text: str) -> str | None:
    """Which kind of single value an answer is: 'host', 'port', 'number', 'name'; None for anything longer."""
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", text):
        return "host"
    if re.fullmatch(r"\d{4,5}", text):
        return "port"
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return "number"
    return "name" if re.fullmatch(r"[\w./-]+", text) else None


def text_loss(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """Sum of the losses over a plain text, in nats, and the number of predicted tokens."""
    import torch
    from torch.nn import functional

    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item(), ids.shape[1] - 1


def generate(model: Any, tokenizer: Any, prompt_ids: list[int], max_new: int = 96) -> str:
    """Greedy continuation of a prompt, without the end marker."""
    import torch

    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([prompt_ids]),
            max_new_tokens=max_new,
            do_sample=False,
            attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
        )
    text: str = tokenizer.decode(ids[0, len(prompt_ids) :].tolist(), skip_special_tokens=True)
    return text
