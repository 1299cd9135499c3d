"""What the answers of one method say about acceptance and about time, pooled over prompts and passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labs_helpers.speculation.loop import Generation


@dataclass(frozen=True)
class Answers:
    """Answers of one method: generations[pass][prompt], and the plain loop's at the same places."""

    method: str
    generations: tuple[tuple[Generation, ...], ...]
    plain: tuple[tuple[Generation, ...], ...]

    @property
    def all(self) -> list[Generation]:
        """Every answer of every pass."""
        return [generation for taken in self.generations for generation in taken]

    @property
    def rounds(self) -> int:
        """Steps of the target in one pass."""
        return sum(generation.rounds for generation in self.generations[0])

    @property
    def acceptance_length(self) -> float:
        """New tokens per step of the target over all prompts; each answer's first token comes from prefill."""
        return sum(len(g.ids) - g.prefilled for g in self.generations[0]) / max(1, self.rounds)

    @property
    def position_rates(self) -> list[float]:
        """By depth: of the rounds that drafted so deep and accepted everything before, how many accepted this too."""
        return position_rates(self.generations[0])

    @property
    def same(self) -> int:
        """Answers, over all passes, whose every token is the plain loop's."""
        pairs = zip(self.generations, self.plain, strict=True)
        return sum(a.ids == b.ids for mine, plain in pairs for a, b in zip(mine, plain, strict=True))

    @property
    def agreement(self) -> float:
        """Share of the answers whose every token is the plain loop's."""
        return self.same / len(self.all)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each pass, over all its prompts, prefill included."""
        return tuple(sum(g.seconds for g in taken) for taken in self.generations)

    @property
    def plain_seconds(self) -> tuple[float, ...]:
        """As `seconds`, of the plain loop."""
        return tuple(sum(g.seconds for g in taken) for taken in self.plain)

    @property
    def tokens(self) -> int:
        """New tokens of one pass."""
        return sum(len(g.ids) for g in self.generations[0])

    @property
    def milliseconds(self) -> dict[str, float]:
        """Means over all rounds: `draft`, `verify` (the target's step, judging, moving the cache) and `other`."""
        rounds = max(1, sum(g.rounds for g in self.all))
        draft, verify = sum(g.draft_seconds for g in self.all), sum(g.verify_seconds for g in self.all)
        decode = sum(g.seconds - g.prefill_seconds for g in self.all)
        parts = {"draft": draft, "verify": verify, "other": decode - draft - verify}
        return {name: 1e3 * seconds / rounds for name, seconds in parts.items()}

    @property
    def breakdown(self) -> dict[str, float]:
        """As `milliseconds`, in seconds."""
        return {name: value / 1e3 for name, value in self.milliseconds.items()}

    @property
    def prefill_share(self) -> float:
        """Share of prefill, which speculation cannot speed up, in the time of all answers."""
        return sum(g.prefill_seconds for g in self.all) / sum(g.seconds for g in self.all)


def position_rates(generations: Iterable[Generation]) -> list[float]:
    """Acceptance by depth, each given that everything before was accepted."""
    stood, tried = Counter[int](), Counter[int]()
    for generation in generations:
        for depth, (accepted, drafted) in enumerate(generation.position_counts):
            stood[depth] += accepted
            tried[depth] += drafted
    return [stood[depth] / tried[depth] for depth in sorted(tried)]


def joined(method: str, parts: Sequence[Answers]) -> Answers:
    """The answers of one method to several sets of prompts, as if they had been one set. Equally many passes each."""
    return Answers(
        method,
        tuple(sum(taken, ()) for taken in zip(*(part.generations for part in parts), strict=True)),
        tuple(sum(taken, ()) for taken in zip(*(part.plain for part in parts), strict=True)),
    )
