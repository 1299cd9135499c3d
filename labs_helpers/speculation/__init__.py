"""Speculative decoding from the inside: drafts, trees, verification and the loop, on the course model.

    target = speculation.Target.load()
    speculation.generate(target, prompt_ids, speculation.medusa(target))

Names are imported when they are used, for most of them need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs_helpers.speculation.drafters import draft_model, eagle, eagle3, medusa, prompt_lookup
    from labs_helpers.speculation.loop import Generation, generate
    from labs_helpers.speculation.target import State, Target
    from labs_helpers.speculation.tree import Tree, choose_tree
    from labs_helpers.speculation.verify import Verdict, greedy_accept, rejection_accept, residual, typical_accept

_PLACES = {
    "Target": "target",
    "State": "target",
    "Tree": "tree",
    "choose_tree": "tree",
    "Verdict": "verify",
    "greedy_accept": "verify",
    "rejection_accept": "verify",
    "residual": "verify",
    "typical_accept": "verify",
    "Generation": "loop",
    "generate": "loop",
    "prompt_lookup": "drafters",
    "draft_model": "drafters",
    "medusa": "drafters",
    "eagle": "drafters",
    "eagle3": "drafters",
}

__all__ = [
    "Generation",
    "State",
    "Target",
    "Tree",
    "Verdict",
    "choose_tree",
    "draft_model",
    "eagle",
    "eagle3",
    "generate",
    "greedy_accept",
    "medusa",
    "prompt_lookup",
    "rejection_accept",
    "residual",
    "typical_accept",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
