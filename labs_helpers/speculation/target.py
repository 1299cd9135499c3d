"""The course model for one sequence, as lean as plain torch allows: every loop of the course, plain or not, runs on it.

What it does without: module calls, a growing cache, masks made anew, four small matrices where one will do. What it
keeps: Llama's mathematics in fp32. With `bf16` the weights and what is multiplied with them are bf16; the residual
stream, norms and attention stay fp32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.speculation.layers import DecoderLayer, Norm, Rotation
from labs_helpers.speculation.packed import Linear
from labs_helpers.speculation.tree import Tree

Precision = Literal["fp32", "bf16", "int8"]
"""How the matrices are held: `int8` is for draft models only (`packed.Linear`)."""

CAPACITY = 2048
"""Tokens of prompt and answer together."""
ROOM = 64
"""Rows of the cache past the capacity, for drafts that are not accepted."""
END_IDS = frozenset({0, 2})


@dataclass(frozen=True)
class Output:
    """What one pass of the model says.

    logits: fp32 [rows, vocabulary]; hidden: fp32 [rows, hidden], after the final norm; taps: the inputs of the tapped
    layers side by side, fp32 [tokens, taps * hidden], or None. Rows are all tokens, or the last if only that was asked.
    """

    logits: torch.Tensor
    hidden: torch.Tensor
    taps: torch.Tensor | None


@dataclass
class State:
    """A text that the model has read: `length` rows of the target's cache, and what came out at the last one."""

    length: int
    output: Output

    @property
    def hidden(self) -> torch.Tensor:
        """[hidden], after the final norm, at the last token."""
        return self.output.hidden[-1].clone()  # outside of inference, a tensor like any other

    @property
    def logits(self) -> torch.Tensor:
        """[vocabulary], at the last token."""
        return self.output.logits[-1].clone()


class Target:
    """A Llama with packed weights and one static key-value cache: one sequence at a time, from `prefill` on."""

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        spec: Architecture = SPEC,
        precision: Precision = "fp32",
        capacity: int = CAPACITY,
        threads: int = 1,
    ) -> None:
        self.spec, self.precision, self.capacity, self.threads = spec, precision, capacity, threads
        self.end_ids = END_IDS
        with self.running():  # a packed layout is made for a number of threads
            self._read(tensors)

    def _read(self, tensors: dict[str, torch.Tensor]) -> None:
        spec, precision, capacity = self.spec, self.precision, self.capacity
        self.embedding = tensors["model.embed_tokens.weight"].float()
        self.head_weight = tensors.get("lm_head.weight", self.embedding).float()
        self.head = Linear(self.head_weight, kind=precision)
        self.norm = Norm(tensors["model.norm.weight"], spec.norm_eps)
        self.rotation = Rotation(capacity + ROOM, spec)
        self.cache = torch.zeros(spec.layers, capacity + ROOM, 2 * spec.kv_heads, spec.head_dim)
        self.layers = [
            DecoderLayer.read(tensors, f"model.layers.{i}.", self.cache[i], spec, precision) for i in range(spec.layers)
        ]
        self._masks: dict[int, torch.Tensor] = {}
        self._shown: dict[int, Tree] = {}

    @classmethod
    def load(cls, precision: Precision = "fp32", threads: int = 1, folder: Path | None = None) -> Target:
        """The shipped course model, or the Llama in `folder`.

        threads: of torch, while this model or a drafter of it runs. More than one wait for each other in every
            operation: some percent faster on an idle machine, many times slower where anything else runs.

        Raises:
            LabsError: the folder holds no model of this kind, or the precision is unknown.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from labs_helpers.model.spec import shipped_dir

        if precision not in get_args(Precision):
            raise LabsError(
                f"the lean loop has no precision {precision!r}", "use fp32 or bf16, or int8 for a draft model"
            )
        folder = folder or shipped_dir()
        try:
            spec = read_architecture(json.loads((folder / "config.json").read_text()))
            return cls(load_file(folder / "model.safetensors"), spec, precision, threads=threads)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise LabsError(f"{folder} holds no Llama: {error}", "name a folder that transformers loads") from error

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one step reads."""
        return self.head.bytes + sum(layer.bytes for layer in self.layers)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inference with this model's number of threads; afterwards torch has its former number again."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    def prefill(self, ids: Sequence[int], taps: tuple[int, ...] = (), *, all_rows: bool = False) -> State:
        """Read a prompt into an empty cache. Only the last token leaves the last layer, unless `all_rows`.

        Raises:
            LabsError: the prompt is empty or longer than the cache.
        """
        if not 0 < len(ids) <= self.capacity:
            raise LabsError(f"a prompt has 1 to {self.capacity} tokens here, not {len(ids)}", "give another prompt")
        with self.running():
            tokens = torch.tensor(ids)
            output = self.forward(tokens, 0, self.rotation.turns[: len(ids)], None, taps, last_row=not all_rows)
        return State(len(ids), output)

    def step(self, tokens: Sequence[int], past: int, tree: Tree, taps: tuple[int, ...] = ()) -> Output:
        """Read the nodes of a tree behind `past` rows of the cache, each seeing those rows and its own path.

        Raises:
            LabsError: the cache is full.
        """
        if past + len(tree) > self.capacity + ROOM:
            raise LabsError(f"the cache holds {self.capacity} tokens", "ask for fewer new tokens")
        if tree.is_chain:
            turns = self.rotation.turns[past : past + len(tree)]
        else:
            turns = self.rotation.turns[tree.positions + past]
        mask = None if len(tree) == 1 else self._mask(tree)[:, self.capacity + ROOM - past :]
        return self.forward(torch.tensor(tokens), past, turns, mask, taps)

    def keep(self, past: int, path: Sequence[int]) -> int:
        """Compact the cache: of the rows written behind `past`, keep those of the nodes in `path`, in its order.

        Returns the new length, past + len(path).
        """
        if path[-1] != len(path) - 1:
            rows = torch.tensor(path) + past
            self.cache[:, past : past + len(path)] = self.cache[:, rows]
        return past + len(path)

    def verify(
        self, state: State, tokens: Sequence[int], positions: Sequence[int], mask: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Logits [n, vocabulary] of n tokens behind a state: what one verification is. `state` stays as it is.

        positions: steps from the first of these tokens (0, 1, 1, 2 ...). mask: n rows of 0 and 1 over the n tokens;
        all of them see the whole state.
        """
        with self.running():
            seen = torch.tensor(mask, dtype=torch.bool)
            block = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf).repeat_interleave(self._group, 0)
            whole = torch.cat([torch.zeros(len(block), state.length), block], 1)
            turns = self.rotation.turns[torch.tensor(positions) + state.length]
            logits = self.forward(torch.tensor(tokens), state.length, turns, whole, ()).logits
        return logits.clone()

    def forward(
        self,
        tokens: torch.Tensor,
        past: int,
        turns: torch.Tensor,
        mask: torch.Tensor | None,
        taps: tuple[int, ...],
        last_row: bool = False,
    ) -> Output:
        """One pass over int64 tokens [n] behind `past` cached rows.

        turns: complex [n, 1, head size / 2], the rotation of each token. mask: fp32 [n * query heads per KV head,
        past + n], or None (one token, or a prompt read causally from an empty cache). last_row: only the last token
        leaves the last layer.
        """
        x = self.embedding[tokens]
        tapped = []
        for number, layer in enumerate(self.layers):
            if number in taps:
                tapped.append(x)
            x = layer(x, past, turns, mask, last_row and number == self.spec.layers - 1)
        hidden = self.norm(x)
        return Output(self.head(hidden), hidden, torch.cat(tapped, 1) if tapped else None)

    @property
    def _group(self) -> int:
        return self.spec.heads // self.spec.kv_heads

    def _mask(self, tree: Tree) -> torch.Tensor:
        """fp32 [nodes * group, cache + nodes]: zeros, and the tree's own mask at the right end, so that the mask behind
        any `past` rows is a view of its last past + nodes columns."""
        nodes = len(tree)
        if nodes not in self._masks:
            self._masks[nodes] = torch.zeros(nodes * self._group, self.capacity + ROOM + nodes)
        if self._shown.get(nodes) is not tree:
            self._masks[nodes][:, -nodes:] = tree.additive_mask.repeat_interleave(self._group, 0)
            self._shown[nodes] = tree
        return self._masks[nodes]


def read_architecture(config: dict[str, Any]) -> Architecture:
    """The sizes in a Llama's config.json."""
    return Architecture(
        name=SPEC.name,
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        feed_forward=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        positions=config["max_position_embeddings"],
        rope_theta=config.get("rope_theta") or config["rope_parameters"]["rope_theta"],
        norm_eps=config["rms_norm_eps"],
    )
