"""Medusa's heads: from one hidden state of the frozen model, the tokens after the next one.

Cai et al. 2024, arXiv 2401.10774, section 2.1: head i is a residual block, x + SiLU(Wx + b), and an output matrix; it
predicts the token i + 2 places after the one whose hidden state it reads (the model's own head predicts the first).
As in vLLM's `medusa`, the output matrix may know fewer tokens than the model: `token_map` gives their ids.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from labs_helpers.model.architecture import SPEC
from labs_helpers.speculation.files import read_draft, write_draft


class ResidualBlock(nn.Module):
    """x + SiLU(Wx + b), once per layer; starts as the identity."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        linears = [nn.Linear(hidden, hidden) for _ in range(layers)]
        for linear in linears:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.layers = nn.ModuleList(linears)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + functional.silu(layer(x))
        return x


class MedusaHeads(nn.Module):
    """`heads` residual blocks of `layers` layers, and their output matrices: one each, or one for all (`shared`).

    The modules are named as in vLLM's checkpoints: blocks.i.layers.j.weight|bias, lm_heads.i.weight, token_map.
    """

    token_map: torch.Tensor
    """int64 [draft vocabulary]: the model's id of each token the heads know."""

    def __init__(
        self, token_map: torch.Tensor, heads: int = 5, layers: int = 1, shared: bool = False, hidden: int = SPEC.hidden
    ) -> None:
        super().__init__()
        self.heads, self.layers, self.shared, self.hidden = heads, layers, shared, hidden
        self.blocks = nn.ModuleList(ResidualBlock(hidden, layers) for _ in range(heads))
        count = 1 if shared else heads
        self.lm_heads = nn.ModuleList(nn.Linear(hidden, len(token_map), bias=False) for _ in range(count))
        self.register_buffer("token_map", token_map)

    def start_from(self, output: torch.Tensor) -> None:
        """Let every output matrix begin as the model's own, `output` [vocabulary, hidden]."""
        with torch.no_grad():
            for matrix in self.lm_heads.parameters():
                matrix.copy_(output[self.token_map])

    def forward(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Logits over the draft vocabulary, one tensor [..., draft vocabulary] per head.

        hidden: [..., hidden], the model's state after its final norm.
        """
        return [self.lm_heads[0 if self.shared else i](block(hidden)) for i, block in enumerate(self.blocks)]

    def config(self) -> dict[str, object]:
        """config.json as vLLM reads it."""
        found: dict[str, object] = {
            "architectures": ["MedusaModel"],
            "model_type": "medusa",
            "hidden_size": self.hidden,
            "vocab_size": SPEC.vocabulary,
            "medusa_num_heads": self.heads,
            "medusa_num_layers": self.layers,
            "medusa_fc_bias": True,  # vLLM drops the biases without it
            "truncated_vocab_size": len(self.token_map),
            "torch_dtype": "bfloat16",
        }
        if self.shared:
            found["original_lm_head"] = True
        return found

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors in bf16.

        Raises:
            LabsError: the folder cannot be written.
        """
        write_draft(folder, self.config(), dict(self.state_dict()))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> MedusaHeads:
        """The heads that `save` wrote.

        Raises:
            LabsError: the folder holds none, or another kind of draft.
        """
        config, tensors = read_draft(folder, "MedusaModel")
        heads = cls(
            tensors["token_map"],
            config["medusa_num_heads"],
            config["medusa_num_layers"],
            bool(config.get("original_lm_head")),
            config["hidden_size"],
        )
        heads.load_state_dict(tensors)
        return heads.to(dtype).eval()
