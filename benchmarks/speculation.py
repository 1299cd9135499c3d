"""Every drafter against the plain loop: speedup, acceptance, identity of tokens, and where a round's time goes.

    python benchmarks/speculation.py                      # speed by class of text; some minutes
    python benchmarks/speculation.py --identity 200       # tokens of every lossless method on 200 held-out prompts
    python benchmarks/speculation.py --costs              # a round's cost, EAGLE-3 before and after its fused step

Fp32 unless --precision bf16, batch 1, end to end with prefill, greedy up to the answer's end or 96 tokens; ratios are
against the course's own plain loop, which has every optimisation that the speculative ones have. Prompts are held out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import outcome
from labs_helpers import speculation
from labs_helpers.errors import LabsError
from labs_helpers.model.prompts import OFF_DOMAIN, chat_token_ids, prompts_by_class
from labs_helpers.speculation.drafter import Draft
from labs_helpers.speculation.features import TAPS, rotations
from labs_helpers.speculation.tree import Tree

CLASSES = ("seen-like", "slot-bearing", "off-domain")
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 24, 32, 64)


def methods(target: Any) -> dict[str, Any]:
    """Every drafter of the course whose weights are there, with its default settings, and variants worth knowing."""
    makers = {
        "prompt lookup": lambda: speculation.prompt_lookup(),
        "draft model": lambda: speculation.draft_model(target),
        "medusa": lambda: speculation.medusa(target),
        "medusa, 11 drafts": lambda: speculation.medusa(target, nodes=11),
        "medusa, growing tree": lambda: speculation.medusa(target, grows=True),
        "eagle": lambda: speculation.eagle(target),
        "eagle3": lambda: speculation.eagle3(target),
        "eagle3, chain of 3": lambda: speculation.eagle3(target, depth=3),
        "eagle3, with siblings": lambda: speculation.eagle3(target, topk=3, nodes=5, expand=1, confident=0.2),
        "eagle3, dynamic tree": lambda: speculation.eagle3(target, depth=5, topk=3, nodes=11),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except LabsError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found


def speed(target: Any, per_class: int, passes: int) -> dict[str, Any]:
    """Per class and overall: speedup with spread, acceptance, time of a round."""
    found = methods(target)
    taken = {}
    for kind in CLASSES:
        prompts = prompts_by_class(kind, per_class, seed=1)  # type: ignore[arg-type]
        taken[kind] = speculation.measure(target, found, prompts, passes=passes, workload=kind, progress=False)
        print(f"{kind}\n{taken[kind]}", file=sys.stderr, flush=True)
    overall = speculation.pooled(taken.values())
    rows = []
    for kind, comparison in [*taken.items(), ("overall", _as_comparison(overall, taken["seen-like"]))]:
        for name in comparison:
            answers = comparison[name]
            spread = comparison.spread(name)
            rows.append(
                {
                    "class": kind,
                    "method": name,
                    "speedup": round(comparison.speedup(name), 3),
                    "bootstrap95": [round(spread.low, 3), round(spread.high, 3)],
                    "acceptance_length": round(answers.acceptance_length, 3),
                    "position_rates": [round(rate, 3) for rate in answers.position_rates],
                    "same": [answers.same, len(answers.all)],
                    "ms_per_round": {k: round(v, 3) for k, v in answers.milliseconds.items()},
                    "prefill_share": round(answers.prefill_share, 3),
                    "tokens_per_s": round(answers.tokens / sorted(answers.seconds)[len(answers.seconds) // 2], 1),
                    "tokens": answers.tokens,
                }
            )
    return {"passes": passes, "prompts_per_class": per_class, "rows": rows}


def _as_comparison(answers: dict[str, Any], like: Any) -> Any:
    return speculation.Comparison(answers, "overall", 0.0, like.precision, like.threads, like.machine)


def identity(target: Any, n: int) -> dict[str, Any]:
    """How many of `n` held-out prompts every method answers with the plain loop's tokens, and where others differ."""
    off = len(OFF_DOMAIN)
    counts = {"seen-like": (n - off + 1) // 2, "slot-bearing": (n - off) // 2, "off-domain": off}
    prompts = [
        chat_token_ids([("user", text)])
        for kind, count in counts.items()
        for text in prompts_by_class(kind, count, seed=11)  # type: ignore[arg-type]
    ]
    found = methods(target)
    same, differing = dict.fromkeys(found, 0), []
    for number, prompt in enumerate(prompts):
        plain = speculation.generate(target, prompt)
        for name, drafter in found.items():
            ids = speculation.generate(target, prompt, drafter).ids
            same[name] += ids == plain.ids
            if ids != plain.ids:
                place = next(i for i, (a, b) in enumerate(zip(ids, plain.ids, strict=False)) if a != b)
                best = target.prefill([*prompt, *plain.ids[:place]]).logits.topk(2).values.tolist()
                differing.append({"prompt": number, "method": name, "place": place, "two best logits": best})
        if number % 20 == 19:
            print(f"{number + 1} prompts: {same}", file=sys.stderr, flush=True)
    return {"prompts": counts, "same": same, "of": len(prompts), "differing": differing}


class UnfusedEagle3:
    """EAGLE-3's chain as its module says it: seven matrices one by one in fp32, a cache that grows, a norm in eight
    operations, every prompt row through the whole layer. What the fused step is measured against."""

    name, taps, all_rows = "eagle3, unfused", TAPS, False

    def __init__(self, target: Any, depth: int = 5) -> None:
        from labs_helpers.speculation.drafters import weights_dir
        from labs_helpers.speculation.eagle3_draft import Eagle3Draft

        self.draft_module, self.depth = Eagle3Draft.load(weights_dir("eagle3")), depth
        self.embedding, self.spec = target.embedding, target.spec
        self.turns = rotations(target.spec.positions, target.spec.head_dim, target.spec.rope_theta)

    def begin(self, target: Any, prompt: Sequence[int], output: Any, first: int, sampling: Any) -> None:
        self.cache: list[torch.Tensor] = []
        self.unread = (output.taps, [*prompt[1:], first])
        self.length = 0

    def accept(self, output: Any, path: Sequence[int], tokens: Sequence[int]) -> None:
        if self.unread is not None:
            self._read()
        self.unread = (output.taps[list(path)], list(tokens))

    def _read(self) -> torch.Tensor:
        taps, tokens = self.unread  # type: ignore[misc]
        self.unread = None
        self.cache = [part[:, :, : self.length] for part in self.cache]
        found = self._layer(self.draft_module.fc(taps)[None], tokens)
        self.length += len(tokens)
        return found

    def _layer(self, feature: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        layer, n = self.draft_module.layer, len(tokens)
        past = self.cache[0].shape[2] if self.cache else 0
        cos, sin = (table[None, past : past + n] for table in self.turns)
        x, residual = self.draft_module.enter(self.embedding[torch.tensor(tokens)][None], feature)
        q, k, v = layer.self_attn.project(x, cos, sin)
        self.cache = [torch.cat(pair, 2) for pair in zip(self.cache, (k, v), strict=True)] if past else [k, v]
        mask = torch.ones(n, past + n, dtype=torch.bool).tril(past)
        k, v = (part.repeat_interleave(self.spec.heads // self.spec.kv_heads, 1) for part in self.cache)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        found: torch.Tensor = layer.finish(residual, attended)[:, -1:]
        return found

    def draft(self, room: int) -> Draft:
        depth = min(self.depth, room)
        if depth < 1:
            return Draft((), Tree.chain(0))
        found, tokens = self._read(), []
        for step in range(depth):
            index = int(self.draft_module.logits(found[0, -1]).argmax())
            tokens.append(index + int(self.draft_module.d2t[index]))
            if step + 1 < depth:
                found = self._layer(found, tokens[-1:])
        return Draft(tuple(tokens), Tree.chain(depth))


def costs(target: Any) -> dict[str, Any]:
    """Milliseconds: a step over M tokens, a round of every drafter, EAGLE-3's round before and after; interleaved."""
    seconds = speculation.verify_costs(target, SIZES, passes=25)
    found = methods(target)
    if "eagle3" in found:
        found["eagle3, unfused"] = UnfusedEagle3(target)
        found["eagle3, fp32"] = speculation.eagle3(target, kind="fp32")
    if "medusa" in found:
        found["medusa, fp32"] = speculation.medusa(target, kind="fp32")
    rounds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(3):
        for name, drafter in found.items():
            rounds[name].append(speculation.draft_cost(target, drafter))
    return {
        "step_ms": {size: round(1e3 * value, 3) for size, value in seconds.items()},
        "verify_ratio": {size: round(value / seconds[1], 3) for size, value in seconds.items()},
        "draft_ms": {name: round(1e3 * sorted(values)[1], 3) for name, values in rounds.items()},
        "draft_cost": {name: round(sorted(values)[1] / seconds[1], 3) for name, values in rounds.items()},
    }


def measure(options: Any) -> dict[str, Any]:
    """What the options ask for."""
    found = outcome.head("speculation")
    target = speculation.Target.load(options.precision, options.threads)
    found |= {"precision": options.precision, "threads": target.threads, "torch": torch.__version__}
    if options.identity:
        return found | {"identity": identity(target, options.identity)}
    if options.costs:
        return found | {"costs": costs(target)}
    return found | {"speed": speed(target, options.prompts, options.passes)}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The result as text."""
    for row in found.get("speed", {}).get("rows", []):
        low, high = row["bootstrap95"]
        yield (
            f"{row['class']:13} {row['method']:22} {row['speedup']:.2f}x ({low:.2f} to {high:.2f})  "
            f"tau {row['acceptance_length']:.2f}  same {row['same'][0]}/{row['same'][1]}  {row['ms_per_round']}"
        )
    if "identity" in found:
        part = found["identity"]
        yield from (f"{name}: {same} of {part['of']} the same" for name, same in part["same"].items())
        yield from (str(case) for case in part["differing"])
    for name, row in found.get("costs", {}).items():
        yield f"{name}: {row}"
    if warning := outcome.warning(found):
        yield warning


def main() -> int:
    parser = outcome.parser(str(__doc__))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=12, help="per class")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--identity", type=int, default=0, metavar="N", help="compare tokens on N held-out prompts")
    parser.add_argument("--costs", action="store_true", help="time steps and rounds instead")
    options = parser.parse_args()
    return outcome.run(options, lambda: measure(options), lambda found: print("\n".join(lines(found))))


if __name__ == "__main__":
    sys.exit(main())
