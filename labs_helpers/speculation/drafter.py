"""What proposes tokens: the interface between the loop and its drafters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labs_helpers.speculation.tree import Tree

if TYPE_CHECKING:
    import torch

    from labs_helpers.speculation.target import Output, Target

NOTHING = Tree.chain(0)
"""The tree of a step without a draft: plain decoding."""


@dataclass(frozen=True)
class Draft:
    """Tokens of a tree's nodes without the root, in its order.

    probabilities: fp32 [nodes, vocabulary], row n what the children of node n were drawn from; None when they were
    chosen, not drawn. confidence: per token, the drafter's own probability of the path to it, where it has one.
    """

    tokens: tuple[int, ...]
    tree: Tree
    probabilities: torch.Tensor | None = None
    confidence: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How a drafter that can draw from its distribution should: `temperature` 0 means that it chooses."""

    temperature: float
    generator: torch.Generator


class Drafter(Protocol):
    """Proposes drafts for one sequence at a time. Whatever it proposes, greedy text stays the model's own.

    taps: layers of the target whose inputs it reads. all_rows: it reads the hidden states of the whole prompt.
    """

    name: str
    taps: tuple[int, ...]
    all_rows: bool

    def begin(self, target: Target, prompt: Sequence[int], output: Output, first: int, sampling: Sampling) -> None:
        """A new sequence: the prompt was read with this output, and `first` is the token after it."""
        ...

    def draft(self, room: int) -> Draft:
        """Drafts after the last certain token; at most `room` deep are of use."""
        ...

    def accept(self, output: Output, path: Sequence[int], tokens: Sequence[int]) -> None:
        """The verification's output at all nodes, the nodes that stand (the root first), and the tokens that they
        brought: the accepted drafts and the bonus."""
        ...
