"""EAGLE, the first: one decoder layer that continues the model's own hidden states, read by the model's own head.

Li et al. 2024, arXiv 2401.15077, section 4.1: the draft reads the feature of token t (the model's state after its final
norm) with the embedding of token t + 1, and predicts the feature of token t + 1. As in vLLM's `eagle`, the layer has no
norm before its attention and none after its end.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.model.checkpoint import llama_config
from labs_helpers.speculation.files import read_draft, write_draft
from labs_helpers.speculation.layer import DraftLayer


class EagleDraft(nn.Module):
    """`fc` joins embedding and feature; `layers.0` is the layer. Embedding and head are the model's and not kept."""

    def __init__(self, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.spec = spec
        self.fc = nn.Linear(2 * spec.hidden, spec.hidden, bias=False)
        self.layers = nn.ModuleList([DraftLayer(spec.hidden, spec)])

    @property
    def layer(self) -> DraftLayer:
        """The decoder layer."""
        layer: DraftLayer = self.layers[0]  # type: ignore[assignment]
        return layer

    def enter(self, embeddings: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention reads and the residual it is added to, here the same, from the next tokens' embeddings."""
        x = self.fc(torch.cat([embeddings, features], -1))
        return x, x

    def config(self) -> dict[str, object]:
        """config.json as vLLM's `eagle` reads it."""
        return llama_config("bf16", self.spec) | {
            "architectures": ["EagleLlamaForCausalLM"],
            "num_hidden_layers": 1,
            "tie_word_embeddings": False,
        }

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors in bf16.

        Raises:
            LabsError: the folder cannot be written.
        """
        write_draft(folder, self.config(), dict(self.state_dict()))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> EagleDraft:
        """The draft that `save` wrote.

        Raises:
            LabsError: the folder holds none, or another kind of draft.
        """
        _, tensors = read_draft(folder, "EagleLlamaForCausalLM")
        draft = cls()
        draft.load_state_dict(tensors)
        return draft.to(dtype).eval()
