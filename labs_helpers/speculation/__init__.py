"""Speculative decoding from the inside: drafts, trees, verification and the loop, on the course model.

    target = speculation.Target.load()
    speculation.generate(target, prompt_ids, speculation.medusa(target))

Names are imported when they are used, for most of them need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs_helpers.speculation.answers import Answers
    from labs_helpers.speculation.cost import draft_cost, interpolate, predicted_speedup, verify_costs
    from labs_helpers.speculation.drafters import draft_model, eagle, eagle3, hf_assisted, medusa, prompt_lookup
    from labs_helpers.speculation.looking import first_round, two_distributions
    from labs_helpers.speculation.loop import Generation, generate
    from labs_helpers.speculation.measuring import Comparison, acceptance, measure, pooled
    from labs_helpers.speculation.target import State, Target
    from labs_helpers.speculation.tree import Tree, choose_tree
    from labs_helpers.speculation.verify import Verdict, greedy_accept, rejection_accept, residual, typical_accept

_PLACES = {
    "answers": ("Answers",),
    "cost": (
        "draft_cost",
        "interpolate",
        "predicted_speedup",
        "verify_costs",
    ),
    "drafters": (
        "draft_model",
        "eagle",
        "eagle3",
        "hf_assisted",
        "medusa",
        "prompt_lookup",
    ),
    "looking": (
        "first_round",
        "two_distributions",
    ),
    "loop": (
        "Generation",
        "generate",
    ),
    "measuring": (
        "Comparison",
        "acceptance",
        "measure",
        "pooled",
    ),
    "target": (
        "State",
        "Target",
    ),
    "tree": (
        "Tree",
        "choose_tree",
    ),
    "verify": (
        "Verdict",
        "greedy_accept",
        "rejection_accept",
        "residual",
        "typical_accept",
    ),
}
_HOME = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "Answers",
    "Comparison",
    "Generation",
    "State",
    "Target",
    "Tree",
    "Verdict",
    "acceptance",
    "choose_tree",
    "draft_cost",
    "draft_model",
    "eagle",
    "eagle3",
    "first_round",
    "generate",
    "greedy_accept",
    "hf_assisted",
    "interpolate",
    "measure",
    "medusa",
    "pooled",
    "predicted_speedup",
    "prompt_lookup",
    "rejection_accept",
    "residual",
    "two_distributions",
    "typical_accept",
    "verify_costs",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
