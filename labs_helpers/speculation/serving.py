"""The shipped drafts on real engines: what each engine is told, and the tokens per step that it counted itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from labs_helpers.errors import LabsError
from labs_helpers.speculation.export import draft_model_dir

if TYPE_CHECKING:
    from labs_helpers.engines.base import Counters

Precision = Literal["bf16", "fp32"]

CHAIN = 5
"""Tokens that a chain drafts in one round, unless told otherwise."""


def vllm_config(method: str, steps: int | None = None, precision: Precision = "fp32") -> dict[str, Any]:
    """`speculative=` of the vLLM engine for a method, with the shipped draft it needs.

    Args:
        method: medusa, eagle, eagle3, draft_model or ngram (docs.vllm.ai, "Speculative Decoding").
        steps: tokens drafted per round; Medusa's are its heads, always all.
        precision: of the served model.

    Raises:
        LabsError: no such method, steps that Medusa cannot do, or the draft is missing.
    """
    if method == "ngram":
        lookup = {"prompt_lookup_max": 3, "prompt_lookup_min": 2}
        return {"method": "ngram", "num_speculative_tokens": steps or 4, **lookup}
    drafts = {"medusa": "medusa", "eagle": "eagle", "eagle3": "eagle3", "draft_model": "draft"}
    if method not in drafts:
        raise LabsError(f"vLLM has no method {method!r} here", f"methods: {', '.join([*drafts, 'ngram'])}")
    folder = draft_model_dir(drafts[method], precision)
    if method == "medusa":
        heads = medusa_heads()
        if steps not in (None, heads):
            raise LabsError(f"vLLM uses all {heads} Medusa heads, not {steps}", "leave steps out")
        steps = heads
    return {"method": method, "model": str(folder), "num_speculative_tokens": steps or CHAIN}


def sglang_config(
    algorithm: str, steps: int = CHAIN, topk: int = 1, nodes: int | None = None, precision: Precision = "fp32"
) -> dict[str, Any]:
    """`speculative=` of the SGLang engine for an algorithm, with the shipped draft it needs.

    Args:
        algorithm: EAGLE3, STANDALONE or NGRAM (docs.sglang.io, "Speculative Decoding"); SGLang has no Medusa.
        steps: depth of a round.
        topk: branches of a node; 1 is a chain.
        nodes: tokens verified, the root among them; for a chain steps + 1.
        precision: of the served model.

    Raises:
        LabsError: no such algorithm, or the draft is missing.
    """
    nodes = nodes or (steps + 1 if topk == 1 else 2 * steps + 2)
    if algorithm == "NGRAM":
        return {"algorithm": "NGRAM", "num_draft_tokens": nodes}
    drafts = {"EAGLE3": "eagle3", "STANDALONE": "draft"}
    if algorithm not in drafts:
        raise LabsError(f"SGLang has no {algorithm!r} here", f"algorithms: {', '.join([*drafts, 'NGRAM'])}")
    return {
        "algorithm": algorithm,
        "draft_model_path": str(draft_model_dir(drafts[algorithm], precision)),
        "num_steps": steps,
        "eagle_topk": topk,
        "num_draft_tokens": nodes,
    }


def medusa_heads() -> int:
    """How many heads the shipped Medusa has."""
    import json

    config = json.loads((draft_model_dir("medusa") / "config.json").read_text())
    return int(config["medusa_num_heads"])


def tokens_per_step(before: Counters, after: Counters) -> float | None:
    """New tokens per pass through the served model, prefill left out, from the engine's own counters.

    The first token of a request comes from prefill. SGLang counts its verifying passes. vLLM counts the passes that
    had something to verify, which n-gram lookup does not always have, and accepted tokens, also past the end of an
    answer; so its passes are the greater of what it counted and what generated less accepted tokens leave.

    None where the engine did not speculate in between.
    """
    difference = {name: value - before.raw.get(name, 0.0) for name, value in after.raw.items()}
    generated, requests = (
        (getattr(after, name) or 0.0) - (getattr(before, name) or 0.0) for name in ("generation_tokens", "requests")
    )
    tokens = generated - requests
    if drafts := difference.get("vllm:spec_decode_num_drafts_total"):
        return tokens / max(drafts, tokens - difference.get("vllm:spec_decode_num_accepted_tokens_total", tokens))
    passes = difference.get("sglang:spec_verify_calls_total")
    return tokens / passes if passes else None


def position_rates(before: Counters, after: Counters, depth: int) -> list[float]:
    """vLLM's share of rounds in which the draft at each place of the chain was accepted."""
    name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    drafts = "vllm:spec_decode_num_drafts_total"
    rounds = after.raw.get(drafts, 0.0) - before.raw.get(drafts, 0.0)
    places = [f'{name}{{position="{i}"}}' for i in range(depth)]
    return [(after.raw.get(p, 0.0) - before.raw.get(p, 0.0)) / rounds if rounds else 0.0 for p in places]
