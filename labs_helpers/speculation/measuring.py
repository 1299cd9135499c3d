"""Methods against the plain loop, fairly: the same prompts, in turns, so that a machine that drifts drifts for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.results import Load, Measurement, Spread
from labs_helpers.speculation.answers import Answers, joined
from labs_helpers.speculation.drafter import Drafter
from labs_helpers.speculation.loop import Generation, generate
from labs_helpers.speculation.target import Target

ENGINE = "labs speculation"
PLAIN = "plain"
_RESAMPLES = 2000


class Whole(Protocol):
    """A method with a loop of its own, as transformers' assisted generation is."""

    name: str

    def answer(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Generation:
        """The greedy answer to a prompt."""
        ...


Method = Drafter | Whole | None


@dataclass(frozen=True)
class Comparison:
    """What `measure` found: by method its `Answers`, and rows for `lab.record`."""

    answers: Mapping[str, Answers]
    workload: str
    prompt_tokens: float
    precision: str
    threads: int
    machine: str

    def __getitem__(self, method: str) -> Answers:
        return self.answers[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def speedup(self, method: str) -> float:
        """How many times faster than the plain loop, end to end: ratio of the passes' medians."""
        found = self.answers[method]
        return float(np.median(found.plain_seconds) / np.median(found.seconds))

    def spread(self, method: str) -> Spread:
        """Bootstrap 95% of the speedup over passes; a method's pass and the plain one beside it stay together."""
        found = self.answers[method]
        a, b = np.array(found.plain_seconds), np.array(found.seconds)
        picks = np.random.default_rng(0).integers(0, len(a), size=(_RESAMPLES, len(a)))
        ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        return Spread(low=float(low), high=float(high), kind="bootstrap95")

    def measurements(self) -> list[Measurement]:
        """Rows of every method: output_throughput; but for plain also speedup, acceptance_length, token_agreement."""
        return [row for method in self.answers for row in self._rows(method)]

    def measurement(self, metric: str, method: str) -> Measurement:
        """One of `measurements()`.

        Raises:
            LabsError: there is no such row.
        """
        rows = [row for row in self._rows(method) if row.metric == metric] if method in self.answers else []
        if not rows:
            raise LabsError(f"no {metric} of {method!r} was measured", f"methods: {', '.join(self.answers)}")
        return rows[0]

    def _rows(self, method: str) -> Iterator[Measurement]:
        import torch

        from labs_helpers import __version__

        found = self.answers[method]
        passes = len(found.generations)
        answers = len(found.generations[0])
        common: dict[str, Any] = {
            "engine": ENGINE,
            "engine_version": f"{__version__}, torch {torch.__version__}",
            "model": SPEC.name,
            "precision": self.precision,
            "machine": self.machine,
            "method": "" if method == PLAIN else method,
            "load": Load(
                workload=self.workload,
                concurrency=1,
                prompt_tokens=self.prompt_tokens,
                output_tokens=found.tokens / answers,
                requests=answers,
            ),
        }
        rates = [found.tokens / seconds for seconds in found.seconds]
        yield Measurement(
            metric="output_throughput",
            value=float(np.median(rates)),
            spread=Spread(low=min(rates), high=max(rates), kind="minmax"),
            n=passes,
            **common,
        )
        if method == PLAIN:
            return
        yield Measurement(metric="speedup", value=self.speedup(method), spread=self.spread(method), n=passes, **common)
        yield Measurement(metric="acceptance_length", value=found.acceptance_length, n=max(1, found.rounds), **common)
        yield Measurement(metric="token_agreement", value=found.agreement, n=len(found.all), **common)

    def __str__(self) -> str:
        lines = []
        for method, found in self.answers.items():
            if method != PLAIN:
                spread = self.spread(method)
                parts = ", ".join(f"{name} {value:.2f}" for name, value in found.milliseconds.items())
                lines.append(
                    f"{method}: {self.speedup(method):.2f}x ({spread.low:.2f} to {spread.high:.2f}), "
                    f"{found.acceptance_length:.2f} tokens per step, {found.same}/{len(found.all)} answers the same, "
                    f"ms per round: {parts}"
                )
        return "\n".join(lines)


def measure(
    target: Target,
    methods: Mapping[str, Method],
    prompts: Sequence[str | Sequence[int]],
    passes: int = 5,
    max_new_tokens: int = 96,
    workload: str = "",
    progress: bool = True,
) -> Comparison:
    """Let every method, and the plain loop, answer every prompt greedily `passes` times, in turns.

    Args:
        methods: by name; None is the plain loop, which is always measured, under the name 'plain'.
        prompts: texts, which become a chat with one message, or token ids.
        passes: how often; the spread is over these.
        workload: a name for the prompts, in every row.
        progress: show one line on stdout.

    Raises:
        LabsError: no prompt, or no pass.
    """

    from labs_helpers import machine
    from labs_helpers.bench.progress import request_progress
    from labs_helpers.model.prompts import chat_token_ids

    if not prompts or passes < 1:
        raise LabsError("speculation is measured on at least one prompt and in one pass", "give some")
    ids = [chat_token_ids([("user", p)]) if isinstance(p, str) else list(p) for p in prompts]
    turns: dict[str, Method] = {PLAIN: None, **{name: method for name, method in methods.items() if method is not None}}
    taken: dict[str, list[list[Generation]]] = {name: [] for name in turns}
    for method in turns.values():
        _answer(target, method, ids[0], max_new_tokens)  # whatever is done once is done here
    names = list(turns)
    title = f"{workload or 'speculation'}: {len(ids)} prompts, {passes} passes"
    with request_progress(title, passes * len(ids) * len(names), progress) as line:
        for number in range(passes):
            for name in names:
                taken[name].append([])
            for at, prompt in enumerate(ids):
                first = (number + at) % len(names)
                for name in names[first:] + names[:first]:
                    taken[name][number].append(_answer(target, turns[name], prompt, max_new_tokens))
                    line.step()
        line.close("done")
    generations = {name: tuple(map(tuple, passes_of)) for name, passes_of in taken.items()}
    return Comparison(
        {name: Answers(name, found, generations[PLAIN]) for name, found in generations.items()},
        workload,
        sum(map(len, ids)) / len(ids),
        target.precision,
        target.threads,
        machine.detect().label,
    )


def pooled(comparisons: Iterable[Comparison]) -> dict[str, Answers]:
    """By method, the answers of several comparisons with the same methods and passes, as of one."""
    found = list(comparisons)
    return {name: joined(name, [comparison[name] for comparison in found]) for name in found[0]}


def acceptance(
    target: Target, drafter: Drafter, prompts: Sequence[str | Sequence[int]], max_new_tokens: int = 96
) -> Answers:
    """The answers of one method, once, without the plain loop beside it: for acceptance, not for speed."""
    from labs_helpers.model.prompts import chat_token_ids

    ids = [chat_token_ids([("user", p)]) if isinstance(p, str) else list(p) for p in prompts]
    found = tuple(generate(target, prompt, drafter, max_new_tokens) for prompt in ids)
    return Answers(drafter.name, (found,), (found,))


def _answer(target: Target, method: Method, prompt: Sequence[int], max_new_tokens: int) -> Generation:
    if method is not None and hasattr(method, "answer"):
        with target.running():  # with as many threads
            found: Generation = method.answer(prompt, max_new_tokens)
        return found
    return generate(target, prompt, method, max_new_tokens)
