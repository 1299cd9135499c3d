"""What a training run leaves on disk: a checkpoint to go on from, and the finished model folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC, Architecture

if TYPE_CHECKING:
    import torch


def llama_config(precision: str, spec: Architecture = SPEC) -> dict[str, Any]:
    """config.json with the keys that transformers 4 and 5, vLLM, SGLang and llama.cpp's converter all read."""
    dtype = {"bf16": "bfloat16", "fp32": "float32"}[precision]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.hidden,
        "num_hidden_layers": spec.layers,
        "intermediate_size": spec.feed_forward,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.positions,
        "rms_norm_eps": spec.norm_eps,
        "hidden_act": "silu",
        "rope_theta": spec.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def write_model(tensors: dict[str, torch.Tensor], precision: str, folder: Path, spec: Architecture = SPEC) -> None:
    """Write `model.safetensors`, `config.json` and `generation_config.json`; the tokenizer stands there already.

    `tensors` are named as LlamaForCausalLM names them, without the output head (it is the embedding).
    """
    import torch
    from safetensors.torch import save_file

    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    folder.mkdir(parents=True, exist_ok=True)
    kept = {n: t.detach().to(kind).contiguous() for n, t in tensors.items() if n != "lm_head.weight"}
    temporary = folder / ".model.safetensors"
    save_file(kept, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors writes for the owner only
    temporary.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(llama_config(precision, spec), indent=1) + "\n")
    generation = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")


def read_model(folder: Path, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that `write_model` wrote, in fp32, the output head included.

    Raises:
        LabsError: the folder holds no model, or one of another architecture than `like`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {n: t.to(torch.float32) for n, t in load_file(folder / "model.safetensors").items()}
    except (OSError, SafetensorError) as error:
        raise LabsError(f"{folder} holds no model: {error}", "name a folder with model.safetensors") from error
    tensors["lm_head.weight"] = tensors.get("model.embed_tokens.weight", torch.empty(0))
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in like.items()}:
        raise LabsError(f"{folder} holds a model of another architecture", "name a folder that ./labs model train made")
    return tensors


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Replace the checkpoint in one step, so that a kill while writing leaves the former one."""
    import torch

    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        os.replace(temporary, path)  # noqa: PTH105 - same file system, atomic
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise LabsError(
            f"cannot write the checkpoint {path}: {error}", "free some disk space, then run again"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None when there is none.

    Raises:
        LabsError: the file is damaged.
    """
    import torch

    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        raise LabsError(f"{path} is not a checkpoint: {error}", f"delete {path} to start afresh") from error
    return state
