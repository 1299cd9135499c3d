"""A random Llama small enough for hundreds of generations, and a drafter that may be right or wrong anywhere."""

from __future__ import annotations

import random

import torch

from labs_helpers.model.architecture import Architecture
from labs_helpers.speculation.drafter import Draft
from labs_helpers.speculation.target import Target
from labs_helpers.speculation.tree import Tree

SPEC = Architecture(
    vocabulary=61, hidden=64, layers=3, feed_forward=96, heads=4, kv_heads=2, head_dim=16, positions=512
)


def tensors(seed=0, spec=SPEC):
    """Random weights under the names of transformers' LlamaForCausalLM."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(out, into):
        return torch.randn(out, into, generator=generator) * 1.5 * into**-0.5

    found = {"model.embed_tokens.weight": torch.randn(spec.vocabulary, spec.hidden, generator=generator)}
    found["model.norm.weight"] = torch.rand(spec.hidden, generator=generator) + 0.5
    for i in range(spec.layers):
        p = f"model.layers.{i}."
        size = spec.head_dim
        shapes = {
            "self_attn.q_proj": (spec.heads * size, spec.hidden),
            "self_attn.k_proj": (spec.kv_heads * size, spec.hidden),
            "self_attn.v_proj": (spec.kv_heads * size, spec.hidden),
            "self_attn.o_proj": (spec.hidden, spec.heads * size),
            "mlp.gate_proj": (spec.feed_forward, spec.hidden),
            "mlp.up_proj": (spec.feed_forward, spec.hidden),
            "mlp.down_proj": (spec.hidden, spec.feed_forward),
        }
        found |= {f"{p}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{p}{norm}.weight"] = torch.rand(spec.hidden, generator=generator) + 0.5
    return found


def tiny_target(seed=0):
    target = Target(tensors(seed), SPEC, capacity=256)
    target.end_ids = frozenset({2})
    return target


def random_tree(rng, nodes):
    return Tree((-1, *(rng.randrange(node) for node in range(1, nodes + 1))))


class Oracle:
    """Drafts random trees; with probability `right` a node carries the token of the known answer at its depth."""

    name = "oracle"
    taps = ()
    all_rows = False

    def __init__(self, answer, seed, right=0.7):
        self.answer, self.rng, self.right = answer, random.Random(seed), right

    def begin(self, target, prompt, output, first, sampling):
        self.at = 1

    def draft(self, room):
        tree = random_tree(self.rng, self.rng.randrange(8))
        tokens = []
        for depth in tree.depths[1:]:
            place = self.at + depth - 1
            known = place < len(self.answer) and self.rng.random() < self.right
            tokens.append(self.answer[place] if known else self.rng.randrange(SPEC.vocabulary))
        return Draft(tuple(tokens), tree)

    def accept(self, output, path, tokens):
        self.at += len(tokens)
