"""The network before training: random, but for one circuit that is put in by hand.

Copying from the prompt needs an induction circuit (Olsson et al. 2022, "In-context Learning and Induction Heads"):
a head of an early layer notes beside every token which token came before it; a head of a later layer then looks for
the place where the present token was that former token, and writes what stands there. From a plain random start it
had not formed after 0.7 million tokens of this corpus; placed roughly at the start, it copies before any training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.model.checkpoint import llama_config

if TYPE_CHECKING:
    import torch

EMBEDDING_STD = 0.8
"""Large beside one step of the optimiser, which would otherwise wipe the circuit out at once."""
CONSTANT = 4.0
"""Value of residual dimension 0 for every token: what a head reads that attends by position alone."""
FINAL_NORM = 0.025
"""Initial scale of the last norm: the embedding is the output head as well, and logits must start small."""
OFFSETS = 3
"""How many former tokens are noted beside each token."""
COPYING_LAYERS = 4
POSITION_GAIN, MATCH_GAIN, WRITE_GAIN = 1.6, 3.5, 3.0


def new_model(seed: int, spec: Architecture = SPEC) -> Any:
    """The untrained LlamaForCausalLM, fp32. The outputs of all branches but the circuit's start at zero."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**llama_config("fp32", spec)))
    notes = _notes(spec)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        table = model.model.embed_tokens.weight
        table.normal_()
        table[:, 0] = 0.0
        table[:, notes[-1].start :] = 0.0
        table.mul_(EMBEDDING_STD * spec.hidden**0.5 / table.norm(dim=1, keepdim=True))  # no token longer than another
        table[:, 0] = CONSTANT
        model.model.norm.weight.fill_(FINAL_NORM)
        model.model.norm.weight[0] = 0.0  # the constant says nothing about the next token
        token = _projection(spec, notes)
        _former_token_heads(model.model.layers[0].self_attn, token, notes, spec)
        basis = _orthonormal_heads(spec, notes)
        for number, layer in enumerate(model.model.layers[1 : 1 + COPYING_LAYERS]):
            for group in range(spec.kv_heads):
                _match(layer.self_attn, group, token if number == 0 else None, notes, spec)
                _copy(layer.self_attn, group, basis[number * spec.kv_heads + group], spec)
    return model


def _notes(spec: Architecture) -> list[slice]:
    """Where the residual holds what stood one, two and three places before: half a head each, at its end."""
    size = spec.head_dim // 2
    return [slice(spec.hidden - (k + 1) * size, spec.hidden - k * size) for k in range(min(OFFSETS, spec.heads))]


def _projection(spec: Architecture, notes: list[slice]) -> torch.Tensor:
    """A random projection of the residual's token part to one head: [head_dim, hidden]."""
    import torch

    matrix = torch.zeros(spec.head_dim, spec.hidden)
    matrix[:, 1 : notes[-1].start].normal_(0.0, (notes[-1].start - 1) ** -0.5)
    return matrix


def _frequencies(spec: Architecture) -> torch.Tensor:
    """Rotary angle per position of each pair (i, i + head_dim / 2)."""
    import torch

    half = spec.head_dim // 2
    return spec.rope_theta ** (-torch.arange(half) / half)


def _former_token_heads(attention: Any, token: torch.Tensor, notes: list[slice], spec: Architecture) -> None:
    """Heads that attend one, two, three places back, whatever stands there, and write it into the notes.

    They may share keys and values: only the query says how far to look.
    """
    half, size = spec.head_dim // 2, spec.head_dim
    per_group = spec.heads // spec.kv_heads
    angle = _frequencies(spec)
    for back, note in enumerate(notes, 1):
        head, group = back - 1, (back - 1) // per_group
        query, key = attention.q_proj.weight[head * size :][:size], attention.k_proj.weight[group * size :][:size]
        query.zero_()
        key.zero_()
        fast = slice(half // 2)  # the pairs that turn far enough in one position to tell it from the next
        query[:half, 0][fast] = POSITION_GAIN * (back * angle[fast]).cos()
        query[half:, 0][fast] = -POSITION_GAIN * (back * angle[fast]).sin()
        key[:half, 0][fast] = POSITION_GAIN
        attention.v_proj.weight[group * size :][:size] = token
        attention.o_proj.weight[note, head * size : head * size + half].fill_diagonal_(EMBEDDING_STD)


def _orthonormal_heads(spec: Architecture, notes: list[slice]) -> list[torch.Tensor]:
    """Projections [head_dim, hidden] that together cover the residual's token part evenly, so that what all copying
    heads write is nearly the copied token's own embedding and no mixture."""
    import torch

    width, count = notes[-1].start - 1, COPYING_LAYERS * spec.kv_heads
    bases = -(-count * spec.head_dim // width)
    rows = torch.cat([torch.linalg.qr(torch.randn(width, width))[0] for _ in range(bases)])
    padded = torch.zeros(len(rows), spec.hidden)
    padded[:, 1 : 1 + width] = rows
    return list(padded[: count * spec.head_dim].split(spec.head_dim))


def _match(attention: Any, group: int, token: torch.Tensor | None, notes: list[slice], spec: Architecture) -> None:
    """The first head of a key-value group looks for a place before which the same two tokens stood: the present one
    and the one before (with `token`, in the first such layer), or the last two notes (further up, where the present
    token is already mixed with what was copied). Two tokens, so that a digit is not taken for any other like it.

    Only the slow half of the rotary pairs takes part, so that the match hardly depends on the distance.
    """
    import torch

    half, size = spec.head_dim // 2, spec.head_dim
    query = attention.q_proj.weight[group * (spec.heads // spec.kv_heads) * size :][:size]
    key = attention.k_proj.weight[group * size :][:size]
    slow = torch.arange(half // 2, half)
    some = (torch.arange(half // 2) + group * (half // 2)) % half  # each group compares other components
    query.zero_()
    key.zero_()
    later = 0 if token is not None else 1
    if token is not None:
        query[slow] = MATCH_GAIN * token[some]
    else:
        query[slow, notes[0].start + some] = MATCH_GAIN
    key[slow, notes[later].start + some] = MATCH_GAIN
    query[slow + half, notes[later].start + some] = MATCH_GAIN
    key[slow + half, notes[later + 1].start + some] = MATCH_GAIN


def _copy(attention: Any, group: int, found: torch.Tensor, spec: Architecture) -> None:
    """The first head of a key-value group writes the part `found` [head_dim, hidden] of the token it attends to."""
    size = spec.head_dim
    attention.v_proj.weight[group * size :][:size] = found
    head = group * (spec.heads // spec.kv_heads) * size
    attention.o_proj.weight[:, head : head + size] = WRITE_GAIN * EMBEDDING_STD * found.T
