"""The decode loop: draft, verify, accept; plain decoding is the same loop without a draft."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from labs_helpers.errors import LabsError
from labs_helpers.speculation.drafter import NOTHING, Draft, Drafter, Sampling
from labs_helpers.speculation.target import Output, Target
from labs_helpers.speculation.verify import Verdict, greedy_accept, rejection_accept, typical_accept

Acceptance = Literal["exact", "typical"]


@dataclass(frozen=True)
class Generation:
    """One answer and what it took. Times are seconds; `seconds` is all of it, prefill included.

    ids: the new tokens, the end marker included. rounds: steps of the target after prefill. accepted: accepted drafts
    per round. drafted: drafted tokens of all rounds. depths: per round, how deep its tree went. prefilled: new tokens
    that came from reading the prompt, not from a round.
    """

    ids: tuple[int, ...]
    rounds: int
    accepted: tuple[int, ...]
    drafted: int
    depths: tuple[int, ...]
    seconds: float
    prefill_seconds: float
    draft_seconds: float
    verify_seconds: float
    prefilled: int = 1

    @property
    def acceptance_length(self) -> float:
        """New tokens per step of the target; the first token comes from prefill and is not counted."""
        return (len(self.ids) - self.prefilled) / self.rounds if self.rounds else 1.0

    @property
    def position_counts(self) -> tuple[tuple[int, int], ...]:
        """Per depth, from 1: (rounds in which that depth's draft was accepted, rounds in which it was tried, that is,
        drafted and everything before it accepted)."""
        tried, stood = Counter[int](), Counter[int]()
        for accepted, depth in zip(self.accepted, self.depths, strict=True):
            tried.update(range(1, min(accepted + 1, depth) + 1))
            stood.update(range(1, accepted + 1))
        return tuple((stood[depth], tried[depth]) for depth in range(1, max(tried, default=0) + 1))


def generate(
    target: Target,
    prompt_ids: Sequence[int],
    drafter: Drafter | None = None,
    max_new_tokens: int = 96,
    temperature: float = 0.0,
    seed: int | None = None,
    acceptance: Acceptance = "exact",
) -> Generation:
    """The answer to a prompt, up to its end marker or `max_new_tokens`.

    Args:
        target: the model whose text this is.
        prompt_ids: the prompt, chat markers included.
        drafter: proposes tokens; None is plain decoding.
        temperature: 0 is greedy: the ids are plain decoding's, whatever the drafter proposes. Above 0 they are drawn,
            with plain decoding's distribution.
        seed: of the draws; None draws it.
        acceptance: `typical` is Medusa's typical acceptance: faster and LOSSY, only above temperature 0.

    Raises:
        LabsError: no token is asked for, prompt and answer exceed the cache, or typical acceptance at temperature 0.
    """
    if acceptance == "typical" and not temperature:
        raise LabsError("typical acceptance needs a temperature above 0", "at 0 it is greedy acceptance: use 'exact'")
    if max_new_tokens < 1 or len(prompt_ids) + max_new_tokens > target.capacity:
        raise LabsError(
            f"{len(prompt_ids)} prompt and {max_new_tokens} new tokens do not fit {target.capacity}", "ask for fewer"
        )
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    sampling = Sampling(temperature, generator)
    with target.running():
        return _generate(target, prompt_ids, drafter, max_new_tokens, sampling, acceptance)


def _generate(
    target: Target,
    prompt_ids: Sequence[int],
    drafter: Drafter | None,
    limit: int,
    sampling: Sampling,
    acceptance: Acceptance,
) -> Generation:
    clock = time.perf_counter
    started = clock()
    taps = drafter.taps if drafter else ()
    state = target.prefill(prompt_ids, taps, all_rows=drafter.all_rows if drafter else False)
    past, ids = state.length, [_choose(state.logits, sampling)]
    after_prefill = clock()
    if drafter:
        drafter.begin(target, prompt_ids, state.output, ids[0], sampling)
    accepted: list[int] = []
    depths: list[int] = []
    drafted, draft_s, verify_s = 0, clock() - after_prefill, 0.0
    draft = Draft((), NOTHING)
    ended = ids[0] in target.end_ids
    while not ended and len(ids) < limit:
        begun = clock()
        if drafter:
            draft = drafter.draft(limit - len(ids) - 1)
        ready = clock()
        output = target.step((ids[-1], *draft.tokens), past, draft.tree, taps)
        verdict = _judge(draft, output, sampling, acceptance)
        past = target.keep(past, verdict.path)
        verified = clock()
        new = [draft.tokens[node - 1] for node in verdict.path[1:]]
        new.append(verdict.bonus)
        if drafter:
            drafter.accept(output, verdict.path, new)
        draft_s += ready - begun + clock() - verified
        verify_s += verified - ready
        kept, ended = _until_end(new, limit - len(ids), target.end_ids)
        ids += kept
        stood = min(
            len(verdict.path) - 1, len(kept)
        )  # drafts past the end are not counted, nor held against the drafter
        accepted.append(stood)
        depths.append(stood if len(kept) < len(new) or ended else draft.tree.depth)
        drafted += len(draft.tokens)
    seconds = clock() - started
    return Generation(
        tuple(ids),
        len(accepted),
        tuple(accepted),
        drafted,
        tuple(depths),
        seconds,
        after_prefill - started,
        draft_s,
        verify_s,
    )


def _until_end(new: list[int], room: int, end_ids: frozenset[int]) -> tuple[list[int], bool]:
    """The tokens that still belong to the answer, and whether its end marker is the last of them."""
    for end, token in enumerate(new[:room], 1):
        if token in end_ids:
            return new[:end], True
    return new[:room], False


def _choose(logits: torch.Tensor, sampling: Sampling) -> int:
    if not sampling.temperature:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / sampling.temperature, -1), 1, generator=sampling.generator))


def _judge(draft: Draft, output: Output, sampling: Sampling, acceptance: Acceptance) -> Verdict:
    tokens = (-1, *draft.tokens)
    if not sampling.temperature:
        return greedy_accept(draft.tree, tokens, output.logits.argmax(-1).tolist())
    target = torch.softmax(output.logits / sampling.temperature, -1)
    if acceptance == "typical":
        return typical_accept(draft.tree, tokens, target, sampling.generator)
    return rejection_accept(draft.tree, tokens, target, draft.probabilities, sampling.generator)
