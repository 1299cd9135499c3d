"""What the drafts learn from: the frozen course model's own greedy answers, and its hidden states along them.

A run is kept as shards in a folder and goes on where it was interrupted. Everything comes from the training side of
the corpus; calibration prompts are drawn first and occur in no training prompt, held-out prompts occur in neither.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.corpus import FULL_MIX, Document, documents
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import fast_tokenizer, render_chat

if TYPE_CHECKING:
    import torch

TAPS = (2, 5, 9)
"""Layers whose INPUT EAGLE-3 reads: low, middle, high."""
FEATURES = ("low", "middle", "high", "final")
"""`final` is the hidden state after the last norm, which the output head reads."""
TRAINING_PROMPTS = 12_288
CALIBRATION_PROMPTS = 384
CHUNK = 256
"""Answers written side by side, and the size of a shard."""
NEW_TOKENS = 96
PAST_THE_END = 0.05
"""Share of answers that run on to NEW_TOKENS tokens past their end, as a benchmark with a fixed length makes them."""
LATER_TURN = 0.4
"""Share of the prompts that are a conversation up to any of its answers; the others end with their first question."""
CALIBRATION_SEED, TRAINING_SEED = 7_001, 7_002


@dataclass(frozen=True)
class Prompt:
    """Token ids up to where the model answers; with `run_on` the answer goes on past its end."""

    ids: tuple[int, ...]
    run_on: bool = False


@dataclass(frozen=True)
class Answered:
    """Sequences laid end to end.

    ids: int64 [n]; lengths, prompts: int64 [sequences], tokens of a sequence and of its prompt; features: by name,
    [n, hidden] in the model's type. The features of a sequence's last token are zero: it was never read.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    prompts: torch.Tensor
    features: dict[str, torch.Tensor]

    def sequences(self) -> Iterator[slice]:
        """Where each sequence stands."""
        end = 0
        for length in self.lengths.tolist():
            yield slice(end, end + length)
            end += length


def _prompt(document: Document, rng: random.Random) -> Prompt:
    answers = [i for i, (role, _) in enumerate(document.turns) if role == "assistant"]
    until = rng.choice(answers) if rng.random() < LATER_TURN else answers[0]
    ids = fast_tokenizer(shipped_dir()).encode(render_chat(document.turns[:until])).ids
    return Prompt(tuple(ids), rng.random() < PAST_THE_END)


@lru_cache(maxsize=4)
def _drawn(seed: int, n: int, forbidden: frozenset[str]) -> tuple[tuple[str, Prompt], ...]:
    rng = random.Random(f"{seed}/prompts")  # noqa: S311 - a corpus, not a secret
    drawn: dict[str, Prompt] = {}
    for document in islice(documents(seed, FULL_MIX), 20 * n):
        if document.prompt not in forbidden and document.prompt not in drawn:
            drawn[document.prompt] = _prompt(document, rng)
        if len(drawn) == n:
            break
    return tuple(drawn.items())


def calibration_prompts(n: int = CALIBRATION_PROMPTS) -> list[Prompt]:
    """Prompts for choosing a tree. They are in no training set; each answer stops at its end."""
    return [Prompt(prompt.ids) for _, prompt in _drawn(CALIBRATION_SEED, CALIBRATION_PROMPTS, frozenset())[:n]]


def training_prompts(n: int = TRAINING_PROMPTS, seed: int = 0) -> list[Prompt]:
    """Different prompts of the training side, without the calibration ones."""
    calibration = frozenset(text for text, _ in _drawn(CALIBRATION_SEED, CALIBRATION_PROMPTS, frozenset()))
    return [prompt for _, prompt in _drawn(TRAINING_SEED + 10 * seed, n, calibration)]


class Frozen:
    """The course model for many sequences at once: packed matrices, bf16 products, fp32 in between."""

    def __init__(self, folder: Path | None = None, dtype: str = "bfloat16") -> None:
        import torch
        from safetensors.torch import load_file

        from labs_helpers.model.architecture import SPEC

        folder = folder or shipped_dir()
        self.spec, self.dtype = SPEC, getattr(torch, dtype)
        tensors = load_file(folder / "model.safetensors")
        self.embedding = tensors["model.embed_tokens.weight"].to(self.dtype)
        self.final_norm = tensors["model.norm.weight"].float()
        self.layers: list[dict[str, torch.Tensor]] = []
        for i in range(SPEC.layers):
            part = {n.removeprefix(f"model.layers.{i}."): t for n, t in tensors.items() if f".layers.{i}." in n}
            attention = [part[f"self_attn.{p}_proj.weight"] for p in "qkv"]
            self.layers.append(
                {
                    "qkv": torch.cat(attention).to(self.dtype),
                    "o": part["self_attn.o_proj.weight"].to(self.dtype),
                    "gate_up": torch.cat([part["mlp.gate_proj.weight"], part["mlp.up_proj.weight"]]).to(self.dtype),
                    "down": part["mlp.down_proj.weight"].to(self.dtype),
                    "before": part["input_layernorm.weight"].float(),
                    "between": part["post_attention_layernorm.weight"].float(),
                }
            )
        self.turns = rotations(SPEC.positions, SPEC.head_dim, SPEC.rope_theta)

    def cache(self, rows: int, width: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of every layer: [rows, KV heads, width, head size]."""
        import torch

        shape = (rows, self.spec.kv_heads, width, self.spec.head_dim)
        return [(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype)) for _ in self.layers]

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: Any, at: int
    ) -> dict[str, torch.Tensor]:
        """Read `ids` [rows, t] into columns at..at+t of the cache; features [rows, t, hidden] by name.

        mask: bool [rows, 1, t, at + t], which columns a token sees.
        """
        from torch.nn import functional

        spec, (rows, t) = self.spec, ids.shape
        sizes = [spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.head_dim]
        x = self.embedding[ids].float()
        cos, sin = (table[positions][:, None] for table in self.turns)
        found: dict[str, torch.Tensor] = {}
        for number, (layer, (keys, values)) in enumerate(zip(self.layers, cache, strict=True)):
            if number in TAPS:
                found[FEATURES[TAPS.index(number)]] = x
            h = functional.rms_norm(x, (spec.hidden,), layer["before"], spec.norm_eps).to(self.dtype)
            q, k, v = (
                part.view(rows, t, -1, spec.head_dim).transpose(1, 2)
                for part in functional.linear(h, layer["qkv"]).split(sizes, -1)
            )
            keys[:, :, at : at + t] = rotate(k.float(), cos, sin).to(self.dtype)
            values[:, :, at : at + t] = v
            q = rotate(q.float(), cos, sin).to(self.dtype)
            k, v = keys[:, :, : at + t], values[:, :, : at + t]
            if t == 1:  # query heads of one KV head stand as rows of one small product
                q = q.view(rows, spec.kv_heads, -1, spec.head_dim)
            else:
                k, v = (part.repeat_interleave(spec.heads // spec.kv_heads, 1) for part in (k, v))
            a = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            a = a.reshape(rows, spec.heads, t, spec.head_dim).transpose(1, 2).reshape(rows, t, -1)
            x = x + functional.linear(a, layer["o"])
            h = functional.rms_norm(x, (spec.hidden,), layer["between"], spec.norm_eps).to(self.dtype)
            gate, up = functional.linear(h, layer["gate_up"]).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate) * up, layer["down"])
        found["final"] = functional.rms_norm(x, (spec.hidden,), self.final_norm, spec.norm_eps)
        return {name: feature.to(self.dtype) for name, feature in found.items()}

    def logits(self, final: torch.Tensor) -> torch.Tensor:
        """Float logits [..., vocabulary] of final features."""
        from torch.nn import functional

        return functional.linear(final.to(self.dtype), self.embedding).float()


def rotations(positions: int, size: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rotary positions, each [positions, size], halves alike as in transformers' Llama."""
    import torch

    rates = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    angles = torch.cat([angles, angles], -1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each head's two halves against each other; x [..., t, size]."""
    import torch

    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def answer(model: Frozen, prompts: list[Prompt], new_tokens: int = NEW_TOKENS) -> Answered:
    """Greedy answers to all prompts side by side, each up to its end marker or `new_tokens`, with their features."""
    import torch

    rows, width = len(prompts), max(len(p.ids) for p in prompts)
    pads = torch.tensor([width - len(p.ids) for p in prompts])
    ids = torch.zeros(rows, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
    positions = (torch.arange(width) - pads[:, None]).clamp_min(0)
    mask = torch.ones(width, width, dtype=torch.bool).tril() & (torch.arange(width) >= pads[:, None, None])
    mask |= torch.eye(width, dtype=torch.bool)  # padding sees itself, so that no row is empty
    total = width + new_tokens
    kept = {name: torch.zeros(rows, total, model.spec.hidden, dtype=model.dtype) for name in FEATURES}
    written = torch.cat([ids, torch.zeros(rows, new_tokens, dtype=torch.long)], 1)
    ends = torch.full((rows,), total)
    run_on = torch.tensor([p.run_on for p in prompts])
    active = torch.arange(rows)
    with torch.inference_mode():
        cache = model.cache(rows, total)
        found = model.forward(ids, positions, mask[:, None], cache, 0)
        for name, feature in found.items():
            kept[name][:, :width] = feature
        last = found["final"][:, -1]
        for column in range(width, total):
            token = model.logits(last).argmax(-1)
            written[active, column] = token
            ended = (token == 2) & ~run_on[active]
            ends[active[ended]] = column + 1
            if column == total - 1 or bool(ended.all()):
                break
            if ended.any():
                stay = ~ended
                active, token = active[stay], token[stay]
                cache = [(k[stay], v[stay]) for k, v in cache]
            seen = (torch.arange(column + 1) >= pads[active, None])[:, None, None]
            found = model.forward(token[:, None], (column - pads[active])[:, None], seen, cache, column)
            for name, feature in found.items():
                kept[name][active, column] = feature[:, 0]
            last = found["final"][:, 0]
    spans = [(row, int(pads[row]), int(ends[row])) for row in range(rows)]
    return Answered(
        torch.cat([written[row, a:b] for row, a, b in spans]),
        ends - pads,
        width - pads,
        {name: torch.cat([feature[row, a:b] for row, a, b in spans]) for name, feature in kept.items()},
    )


def collect(folder: Path, prompts: list[Prompt], *, threads: int | None = None) -> list[Path]:
    """Answer all prompts and keep shards of ids and features in `folder`; shards that are there are not made again.

    Returns the shards in an order in which any beginning holds prompts of all lengths.

    Raises:
        LabsError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    from labs_helpers.model.train import _progress

    if threads:
        torch.set_num_threads(threads)
    by_length = sorted(prompts, key=lambda p: (p.run_on, len(p.ids)))
    chunks = [by_length[i : i + CHUNK] for i in range(0, len(by_length), CHUNK)]
    random.Random(0).shuffle(chunks)  # noqa: S311
    model, shards = None, [folder / f"part-{i:03d}-of-{len(chunks):03d}.safetensors" for i in range(len(chunks))]
    with _progress() as progress:
        task = progress.add_task("the model's own answers", total=len(chunks))
        for chunk, shard in zip(chunks, shards, strict=True):
            if not shard.exists():
                model = model or Frozen()
                found = answer(model, chunk, NEW_TOKENS)
                tensors = {"ids": found.ids.to(torch.int16), "lengths": found.lengths, "prompts": found.prompts}
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    temporary = shard.with_suffix(".making")
                    save_file(tensors | found.features, temporary)
                    temporary.replace(shard)
                except (OSError, RuntimeError) as error:
                    raise LabsError(f"cannot write {shard}: {error}", "free some disk space, then run again") from error
            progress.advance(task)
    return shards


def load(shards: list[Path], names: tuple[str, ...] = FEATURES) -> Answered:
    """Shards as one, with the features of these names only."""
    import torch
    from safetensors import safe_open

    parts: dict[str, list[torch.Tensor]] = {name: [] for name in ("ids", "lengths", "prompts", *names)}
    for shard in shards:
        with safe_open(shard, "pt") as file:
            for name, tensors in parts.items():
                tensors.append(file.get_tensor(name))
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}
    ids, lengths, prompts = joined.pop("ids").long(), joined.pop("lengths"), joined.pop("prompts")
    return Answered(ids, lengths, prompts, joined)
