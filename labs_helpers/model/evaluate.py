"""What the model can do: held-out loss, exact copying, sense after a long prefix, samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from labs_helpers.model.corpus import FULL_MIX, RECALLED_KINDS, documents, long_documents
from labs_helpers.model.prompts import OFF_DOMAIN, prefill_prompt
from labs_helpers.model.scoring import Answer, generate, load_model, score, text_loss, value_kind
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import fast_tokenizer, render_chat

FILLED_KINDS = (
    "echo",
    "repeat",
    "fill_json",
    "fill_yaml",
    "request_body",
    "serve",
    "curl",
    "url",
    "python_client",
    "python_function",
    "docker",
    "say_it_back",
    "status",
    "log_line",
)
"""Kinds whose answers are filled with the values that the prompt names, each in its place."""
FOUND_KINDS = ("lookup", "read_json", "measurements", "rewrite")
"""Kinds that ask for one of several like things, which has to be found first."""
COPIED_KINDS = FILLED_KINDS + FOUND_KINDS
"""Kinds whose answers follow from the prompt alone, so that exactness is well defined."""

LONG_PREFIX = 2048
SAMPLED_KINDS = ("explain", "compare", "lookup", "fill_json", "serve", "incident", "story")


@dataclass(frozen=True)
class Rate:
    """`exact` of `n` answers were exactly right."""

    exact: int
    n: int

    @property
    def share(self) -> float:
        return self.exact / self.n if self.n else 0.0

    def __str__(self) -> str:
        return f"{self.exact}/{self.n} ({100 * self.share:.0f}%)"


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model wrote, greedily."""

    title: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures. Losses are nats per token."""

    answer_loss: Mapping[str, float]
    """By class: seen-like, slot-bearing, after 2k tokens; off-domain is the loss of plain questions."""
    copying: Mapping[str, Rate]
    """Exact answers by kind of document."""
    slots: Mapping[str, Rate]
    """Exact answers that consist of one copied value, by its kind: name, port, number, host."""
    long_prefix: Rate
    """Exact copied answers at least 2,048 tokens into a document."""
    samples: tuple[Sample, ...]

    def copied(self, kinds: Iterable[str] = COPIED_KINDS) -> Rate:
        """The copied answers of some kinds together."""
        rates = [self.copying[kind] for kind in kinds if kind in self.copying]
        return Rate(sum(r.exact for r in rates), sum(r.n for r in rates))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain dictionaries, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"loss, {kind}: {loss:.3f} nats per token" for kind, loss in self.answer_loss.items()]
        lines += [f"values filled in exactly: {self.copied(FILLED_KINDS)}"]
        lines += [f"the right one of several found exactly: {self.copied(FOUND_KINDS)}"]
        lines += [f"copied exactly, {kind}: {rate}" for kind, rate in {**self.slots, **self.copying}.items()]
        lines += [f"copied exactly, after {LONG_PREFIX} tokens: {self.long_prefix}"]
        lines += [f"\n[{s.title}]\n{s.prompt}\n-> {s.answer}" for s in self.samples]
        return "\n".join(lines)


def _rates(answers: Iterable[tuple[str, bool]]) -> dict[str, Rate]:
    counted: dict[str, list[bool]] = defaultdict(list)
    for key, exact in answers:
        counted[key].append(exact)
    return {k: Rate(sum(v), len(v)) for k, v in sorted(counted.items())}


def _mean_loss(answers: list[Answer]) -> float:
    return sum(a.loss * a.tokens for a in answers) / max(1, sum(a.tokens for a in answers))


def _samples(model: Any, tokenizer: Any, seed: int) -> tuple[Sample, ...]:
    samples = []
    for number, kind in enumerate(SAMPLED_KINDS):
        prompt = next(documents(seed + number, {kind: 1.0}, held_out=True)).prompt
        ids = tokenizer.encode(render_chat([("user", prompt)])).ids
        samples.append(Sample(kind, prompt, generate(model, tokenizer, ids)))
    ids = tokenizer.encode(render_chat([("user", OFF_DOMAIN[seed])])).ids
    samples.append(Sample("off-domain", OFF_DOMAIN[seed], generate(model, tokenizer, ids, 48)))
    ids = prefill_prompt(LONG_PREFIX, seed)
    tail = tokenizer.decode(ids[-60:], skip_special_tokens=True)
    samples.append(Sample(f"after a prefix of {LONG_PREFIX} tokens", "[...]" + tail, generate(model, tokenizer, ids)))
    return tuple(samples)


def evaluate(folder: Path | None = None, *, n: int = 600, long_n: int = 12, seed: int = 17) -> Evaluation:
    """Evaluate the model in `folder` (the shipped one by default) in fp32 on `n` held-out documents and `long_n` long
    ones. Shows its progress on stderr, since stdout may be JSON; about a minute on two cores.

    Raises:
        LabsError: the shipped weights are missing.
    """
    from rich.console import Console
    from rich.progress import Progress

    folder = folder or shipped_dir()
    model, tokenizer = load_model(folder), fast_tokenizer(folder)
    answers: list[Answer] = []
    distant: list[Answer] = []
    copied = {k: FULL_MIX[k] for k in COPIED_KINDS}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("held-out documents", total=n + long_n)
        for document in islice(documents(seed, FULL_MIX, held_out=True), n):
            answers += score(model, tokenizer, document)
            progress.advance(task)
        for document in islice(long_documents(seed, copied, 3000, held_out=True), long_n):
            distant += [a for a in score(model, tokenizer, document) if a.start >= LONG_PREFIX]
            progress.advance(task)
    plain = [text_loss(model, tokenizer, text) for text in OFF_DOMAIN]
    slotted = [a for a in answers if a.kind not in RECALLED_KINDS]
    determined = [a for a in slotted if a.kind in COPIED_KINDS]
    return Evaluation(
        answer_loss={
            "seen-like": _mean_loss([a for a in answers if a.kind in RECALLED_KINDS]),
            "slot-bearing": _mean_loss(slotted),
            "after 2k tokens": _mean_loss(distant),
            "off-domain": sum(loss for loss, _ in plain) / sum(tokens for _, tokens in plain),
        },
        copying=_rates((a.kind, a.exact) for a in determined),
        slots=_rates((kind, a.exact) for a in determined if (kind := value_kind(a.text))),
        long_prefix=Rate(sum(a.exact for a in distant), len(distant)),
        samples=_samples(model, tokenizer, seed),
    )
