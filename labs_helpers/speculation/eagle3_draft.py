"""EAGLE-3: one decoder layer that reads low, middle and high features of the model and drafts tokens directly.

Li et al. 2025, arXiv 2503.01840, section 3: no feature is regressed; the layer's own output stands for the features at
the following steps, and training goes through those steps (training-time test). As in vLLM and SGLang: the layer reads
the normed embedding of token t + 1 beside the normed feature of token t, at position t; its output before the last norm
is the next feature; the draft vocabulary is smaller than the model's, `d2t` holds the ids' differences.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.model.checkpoint import llama_config
from labs_helpers.speculation.features import TAPS
from labs_helpers.speculation.files import read_draft, write_draft
from labs_helpers.speculation.layer import DraftLayer, Norm


class MiddleLayer(DraftLayer):
    """A draft layer that reads embedding and feature side by side, each with its own norm."""

    def __init__(self, spec: Architecture = SPEC) -> None:
        super().__init__(2 * spec.hidden, spec)
        self.input_layernorm = Norm(spec)
        self.hidden_norm = Norm(spec)


class Eagle3Draft(nn.Module):
    """`fc` fuses the three features; `midlayer`; `norm` and `lm_head` for the draft vocabulary.

    The embedding is the model's and not kept here.
    """

    d2t: torch.Tensor
    """int64 [draft vocabulary]: the model's id of a draft token, less the draft token's own index."""
    t2d: torch.Tensor
    """bool [vocabulary]: the model's tokens that the draft knows."""

    def __init__(self, token_map: torch.Tensor, spec: Architecture = SPEC) -> None:
        super().__init__()
        self.spec = spec
        self.fc = nn.Linear(len(TAPS) * spec.hidden, spec.hidden, bias=False)
        self.midlayer = MiddleLayer(spec)
        self.norm = Norm(spec)
        self.lm_head = nn.Linear(spec.hidden, len(token_map), bias=False)
        self.register_buffer("d2t", token_map - torch.arange(len(token_map)))
        self.register_buffer("t2d", torch.zeros(spec.vocabulary, dtype=torch.bool).index_fill(0, token_map, True))

    @property
    def layer(self) -> DraftLayer:
        """The decoder layer."""
        return self.midlayer

    def fuse(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's low, middle and high features as one, [..., hidden]."""
        found: torch.Tensor = self.fc(torch.cat([features[name] for name in ("low", "middle", "high")], -1))
        return found

    def enter(self, embeddings: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention reads, [..., 2 hidden], and the residual it is added to: the feature, without a norm."""
        layer = self.midlayer
        return torch.cat([layer.input_layernorm(embeddings), layer.hidden_norm(features)], -1), features

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """Over the draft vocabulary, from the layer's output."""
        found: torch.Tensor = self.lm_head(self.norm(output))
        return found

    @property
    def token_map(self) -> torch.Tensor:
        """int64 [draft vocabulary]: the model's id of each draft token."""
        return self.d2t + torch.arange(len(self.d2t))

    def config(self) -> dict[str, object]:
        """config.json as both engines read it. SGLang adds one to each layer id."""
        return llama_config("bf16", self.spec) | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "num_hidden_layers": 1,
            "tie_word_embeddings": False,
            "draft_vocab_size": len(self.d2t),
            "eagle_aux_hidden_state_layer_ids": list(TAPS),
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": [tap - 1 for tap in TAPS],
                "use_aux_hidden_state": True,
            },
        }

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors in bf16.

        Raises:
            LabsError: the folder cannot be written.
        """
        write_draft(folder, self.config(), dict(self.state_dict()))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Eagle3Draft:
        """The draft that `save` wrote.

        Raises:
            LabsError: the folder holds none, or another kind of draft.
        """
        _, tensors = read_draft(folder, "LlamaForCausalLMEagle3")
        draft = cls(tensors["d2t"] + torch.arange(len(tensors["d2t"])))
        draft.load_state_dict(tensors)
        return draft.to(dtype).eval()
