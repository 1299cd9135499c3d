"""What the model can do: held-out loss, exact copying, sense after a long prefix, samples.

An answer counts as exact when every one of its tokens (its end included) is the model's first choice given the
tokens before it. By induction that is the same as "greedy generation writes exactly this answer", in one forward pass.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.model.corpus import FULL_MIX, Document, documents, long_documents
from labs_helpers.model.packing import encode
from labs_helpers.model.prompts import OFF_DOMAIN
from labs_helpers.model.tokenizer import TURN_END, TURN_START, fast_tokenizer, render_chat

if TYPE_CHECKING:
    import torch

COPIED_KINDS = ("echo", "repeat", "lookup", "rewrite", "measurements", "fill_json", "read_json", "fill_yaml",
                "request_body", "serve", "curl", "url", "python_client", "python_function", "docker", "say_it_back",
                "status", "log_line")
"""Kinds whose answers follow from the prompt alone, so that exactness is well defined."""

RECALLED_KINDS = ("explain", "compare")
LONG_PREFIX = 2048


@dataclass(frozen=True)
class Rate:
    """`exact` of `n` answers were exactly right."""

    exact: int
    n: int

    @property
    def share(self) -> float:
        return self.exact / self.n if self.n else 0.0


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model wrote, greedily."""

    title: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures. Losses are nats per answer token."""

    answer_loss: Mapping[str, float]
    """By class: seen-like, slot-bearing, off-domain (loss of the plain text itself), after a 2k prefix."""
    copying: Mapping[str, Rate]
    """Exact answers by document kind."""
    slots: Mapping[str, Rate]
    """Exact answers that consist of one copied value, by its kind: name, port, number, host."""
    long_prefix: Rate
    """Exact copied answers at least 2,048 tokens into a document."""
    samples: tuple[Sample, ...]

    @property
    def copied(self) -> Rate:
        """All copied answers together."""
        return Rate(sum(r.exact for r in self.copying.values()), sum(r.n for r in self.copying.values()))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


@dataclass(frozen=True)
class Answer:
    """One answer of a document under teacher forcing: where it begins, its mean loss, and whether it is exact."""

    kind: str
    text: str
    start: int
    tokens: int
    loss: float
    exact: bool


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """The model in evaluation mode.

    transformers' own progress bar is switched off: it would go to stderr.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def score(model: Any, tokenizer: Any, document: Document, limit: int = 4096) -> list[Answer]:
    """Every answer of a document, given the true text before it."""
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
            answers.append(Answer(document.kind, content, start, size, losses[start:end].mean().item(),
                                  bool(hits[start:end].all())))
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


def _rates(answers: Iterable[tuple[str, bool]]) -> dict[str, Rate]:
    counted: dict[str, list[bool]] = defaultdict(list)
    for key, exact in answers:
        counted[key].append(exact)
    return {k: Rate(sum(v), len(v)) for k, v in sorted(counted.items())}


def _mean_loss(answers: list[Answer]) -> float:
    return sum(a.loss * a.tokens for a in answers) / max(1, sum(a.tokens for a in answers))


def text_loss(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """Sum of the losses over a plain text and the number of predicted tokens."""
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
        ids = model.generate(torch.tensor([prompt_ids]), max_new_tokens=max_new, do_sample=False,
                             attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long))
    text: str = tokenizer.decode(ids[0, len(prompt_ids):].tolist(), skip_special_tokens=True)
    return text


def _samples(model: Any, tokenizer: Any, seed: int) -> tuple[Sample, ...]:
    from labs_helpers.model.prompts import prefill_prompt

    samples = []
    for mix in ({"explain": 1.0}, {"compare": 1.0}, {"lookup": 1.0}, {"fill_json": 1.0}, {"serve": 1.0},
                {"incident": 1.0}):
        document = next(documents(seed, mix, held_out=True))
        ids = tokenizer.encode(render_chat([("user", document.prompt)])).ids
        samples.append(Sample(document.kind, document.prompt, generate(model, tokenizer, ids)))
    for text in OFF_DOMAIN[:2]:
        ids = tokenizer.encode(render_chat([("user", text)])).ids
        samples.append(Sample("off-domain", text, generate(model, tokenizer, ids, 48)))
    ids = prefill_prompt(LONG_PREFIX, seed)
    tail = tokenizer.decode(ids[-60:], skip_special_tokens=False)
    samples.append(Sample(f"after a prefix of {LONG_PREFIX} tokens", "[...] " + tail, generate(model, tokenizer, ids)))
    return tuple(samples)


def evaluate(folder: Path, *, n: int = 600, long_n: int = 12, seed: int = 7, threads: int | None = None,
             on_progress: Callable[[str, int, int], None] | None = None) -> Evaluation:
    """Evaluate the model in `folder` in fp32 on `n` held-out documents and `long_n` long ones.

    `on_progress(what, done, total)` is called as the work goes on. About two minutes on two cores.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    model, tokenizer = load_model(folder), fast_tokenizer(folder)
    tell = on_progress or (lambda what, done, total: None)
    answers: list[Answer] = []
    for i, document in enumerate(islice(documents(seed, FULL_MIX, held_out=True), n)):
        answers += score(model, tokenizer, document)
        tell("held-out documents", i + 1, n)
    distant: list[Answer] = []
    copied = {k: w for k, w in FULL_MIX.items() if k in COPIED_KINDS}
    for i, document in enumerate(islice(long_documents(seed, copied, 3000, held_out=True), long_n)):
        distant += [a for a in score(model, tokenizer, document) if a.start >= LONG_PREFIX]
        tell("long documents", i + 1, long_n)
    plain = [text_loss(model, tokenizer, text) for text in OFF_DOMAIN]
    recalled = [a for a in answers if a.kind in RECALLED_KINDS]
    slotted = [a for a in answers if a.kind not in RECALLED_KINDS]
    singles = [(value_kind(a.text), a.exact) for a in slotted if a.kind in COPIED_KINDS]
    return Evaluation(
        answer_loss={"seen-like": _mean_loss(recalled), "slot-bearing": _mean_loss(slotted),
                     "off-domain": sum(x for x, _ in plain) / sum(k for _, k in plain),
                     "after 2k tokens": _mean_loss(distant)},
        copying=_rates((a.kind, a.exact) for a in slotted if a.kind in COPIED_KINDS),
        slots=_rates((kind, exact) for kind, exact in singles if kind),
        long_prefix=Rate(sum(a.exact for a in distant), len(distant)),
        samples=_samples(model, tokenizer, seed),
    )
