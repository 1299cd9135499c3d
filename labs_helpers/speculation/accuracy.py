"""How often a draft is right on held-out prompts, by class of text, before any token is generated with it.

Every place of the model's own greedy answers is drafted from. Rates are unconditional for Medusa, whose heads do not
see each other's tokens, and given the former tokens for the others, which do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.model.architecture import SPEC
from labs_helpers.model.prompts import OFF_DOMAIN, chat_token_ids, prompts_by_class
from labs_helpers.speculation import features
from labs_helpers.speculation.features import Answered, Frozen, Prompt

if TYPE_CHECKING:
    import torch

CLASSES = ("seen-like", "slot-bearing", "off-domain")
DEPTH = 7
"""Steps of a chain that are looked at."""
HELD_OUT_SEED = 29
GRAM = 8

Hits = Callable[[Answered], "torch.Tensor"]
"""Of a draft: bool [places, depth], whether the token drafted for each depth is the model's, given those before."""


@dataclass(frozen=True)
class Accuracy:
    """A draft on one class of text."""

    text: str
    places: int
    top1: tuple[float, ...]
    """By depth, over the places whose answer goes on so far."""
    walked: float
    """Tokens per step of a chain as deep as `top1`, walked along the answers: the acceptance length to expect."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def answered(kind: str, n: int = 96, seed: int = HELD_OUT_SEED) -> Answered:
    """The model's own greedy answers, in fp32, to `n` held-out prompts of a class (all there are, off-domain)."""
    texts = prompts_by_class(kind, min(n, len(OFF_DOMAIN)) if kind == "off-domain" else n, seed)  # type: ignore[arg-type]
    prompts = [Prompt(tuple(chat_token_ids([("user", text)]))) for text in texts]
    return features.answer(Frozen(dtype="float32"), prompts)


def walk(hits: Sequence[Sequence[bool]], tokens: int) -> int:
    """Rounds that a chain needs for `tokens` tokens: `hits[i]` is what it gets right when i of them are written."""
    written = rounds = 0
    while written < tokens:
        row = hits[written] if written < len(hits) else ()
        written += 1 + next((d for d, hit in enumerate(row) if not hit), len(row))
        rounds += 1
    return rounds


def by_answer(found: Answered, hits: Hits) -> list[list[list[bool]]]:
    """For each answer, for each of its places, the hits at every depth that the answer still has."""
    from labs_helpers.speculation.rows import spans

    right, at, answers = hits(found).tolist(), 0, []
    for span in spans(found):
        places = right[at : at + span.anchors]
        answers.append([row[: span.anchors - i] for i, row in enumerate(places)])
        at += span.anchors
    return answers


def measure(text: str, found: Answered, hits: Hits) -> Accuracy:
    """Accuracy by depth, and the acceptance length of a chain walked along each answer."""
    every = by_answer(found, hits)
    places = [row for answer in every for row in answer]
    depth = max(map(len, places))
    at_depth = [[row[d] for row in places if len(row) > d] for d in range(depth)]
    rounds = sum(walk(answer, len(answer)) for answer in every)  # the first token comes from prefill
    rates = tuple(round(sum(column) / len(column), 4) for column in at_depth)
    return Accuracy(text, len(places), rates, round(len(places) / max(1, rounds), 3))


def hits_of(name: str, folder: Path, depth: int = DEPTH) -> Hits:
    """The judge of a draft in a folder.

    Raises:
        LabsError: the folder does not hold such a draft.
    """
    return {"medusa": _medusa, "eagle3": _eagle3, "eagle": _eagle, "draft": draft_model_hits}[name](folder, depth)


def _medusa(folder: Path, depth: int) -> Hits:
    from labs_helpers.speculation.medusa_heads import MedusaHeads

    heads = MedusaHeads.load(folder)
    return lambda found: ranks(heads, found)[:, : min(depth, heads.heads)] == 0


def ranks(heads: Any, found: Answered) -> torch.Tensor:
    """int64 [places, heads]: the rank a head gives to the model's token, the vocabulary's size where it has none."""
    import torch

    from labs_helpers.speculation.rows import spans

    columns = []
    with torch.inference_mode():
        for span in spans(found):
            first = span.start + span.prompt - 1
            logits = torch.stack(heads(found.features["final"][first : first + span.anchors].float()))  # [h, a, V]
            full = torch.full((*logits.shape[:2], SPEC.vocabulary), -torch.inf)
            full[..., heads.token_map] = logits
            places = torch.arange(span.anchors)[None] + first + 2 + torch.arange(len(logits))[:, None]
            token = found.ids[places.clamp_max(span.stop - 1)]
            own = full.gather(-1, token[..., None])
            columns.append(torch.where(own[..., 0].isinf(), full.shape[-1], (full > own).sum(-1)).T)
    return torch.cat(columns)


def _unrolled(found: Answered, depth: int, tokens_of: Callable[[Any], list[torch.Tensor]]) -> torch.Tensor:
    """Hits of a draft that gives, for rows, the drafted ids [rows, a] of each step."""
    import torch

    from labs_helpers.speculation.rows import parts, spans
    from labs_helpers.speculation.unroll import pick

    columns = []
    with torch.inference_mode():
        for span in spans(found):
            (rows,), _ = parts(found, [span], 1)
            steps = tokens_of(rows)
            columns.append(
                torch.stack([ids[0] == pick(rows.ids, rows.at(d + 2))[0] for d, ids in enumerate(steps)], -1)
            )
    return torch.cat(columns)


def _eagle3(folder: Path, depth: int) -> Hits:
    from labs_helpers.speculation.eagle3_draft import Eagle3Draft
    from labs_helpers.speculation.unroll import unroll

    draft, model = Eagle3Draft.load(folder), Frozen(dtype="float32")

    def tokens(rows: Any) -> list[torch.Tensor]:
        fused = draft.fuse({name: feature.float() for name, feature in rows.features.items()})
        return [draft.token_map[draft.logits(x).argmax(-1)] for x in unroll(draft, model, rows, fused, depth)]

    return lambda found: _unrolled(found, depth, tokens)


def _eagle(folder: Path, depth: int) -> Hits:
    from labs_helpers.speculation.eagle_draft import EagleDraft
    from labs_helpers.speculation.unroll import unroll

    draft, model = EagleDraft.load(folder), Frozen(dtype="float32")

    def tokens(rows: Any) -> list[torch.Tensor]:
        steps = unroll(draft, model, rows, rows.features["final"].float(), depth)
        return [model.logits(x).argmax(-1) for x in steps]

    return lambda found: _unrolled(found, depth, tokens)


def draft_model_hits(folder: Path, depth: int, unread: int = 0) -> Hits:
    """The judge of a draft model that has not read the first `unread` tokens of a prompt.

    SGLang's STANDALONE runs a draft model as it runs EAGLE's: row t holds token t + 1, so the first is never read.
    """

    from labs_helpers.model.scoring import load_model

    draft = load_model(folder)

    def tokens(rows: Any) -> list[torch.Tensor]:
        said = draft(input_ids=rows.ids[:, unread:]).logits.argmax(-1)[0]
        return [said[rows.at(d + 1) - unread] for d in range(depth)]

    return lambda found: _unrolled(found, depth, tokens)


def grams(sequences: Iterable[Sequence[int]], size: int = GRAM) -> set[tuple[int, ...]]:
    """All runs of `size` tokens."""
    return {tuple(ids[i : i + size]) for ids in sequences for i in range(len(ids) - size + 1)}


def answers(found: Answered) -> list[list[int]]:
    """Token ids of each answer, up to its end."""
    from labs_helpers.speculation.rows import spans

    texts = []
    for span in spans(found):
        ids = found.ids[span.start + span.prompt : span.stop].tolist()
        texts.append(ids[: ids.index(2) + 1] if 2 in ids else ids)
    return texts


def known_share(found: Answered, known: set[tuple[int, ...]]) -> float:
    """Share of the answers' 8-grams that occur in `known`, counted as often as they occur."""
    here = [tuple(ids[i : i + GRAM]) for ids in answers(found) for i in range(len(ids) - GRAM + 1)]
    return sum(gram in known for gram in here) / max(1, len(here))
