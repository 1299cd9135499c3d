"""The shipped drafts in the forms that other programs load, made on demand in the cache.

vLLM and SGLang load the shipped folders as they are, in bf16; for comparisons token for token there are fp32 copies.
Medusa's heads differ: vLLM 0.32 knows a smaller draft vocabulary (`token_map`), but its loader then refuses the
checkpoint, for it counts the map among the weights that were not initialised. So they get an output matrix of the
whole vocabulary. medusa-llm 0.1 wants a layout of its own.

A token the heads do not know gets the mean of the known ones' rows, and so the mean of their logits, which is never
the greatest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.spec import draft_dir, made_in_cache, shipped_dir

if TYPE_CHECKING:
    import torch


def draft_model_dir(name: str, precision: Literal["bf16", "fp32"] = "bf16") -> Path:
    """A folder that vLLM and SGLang load: medusa, eagle3, eagle, or draft (a model of its own, with tokenizer).

    fp32 holds exactly the numbers of bf16 in wider form.

    Raises:
        LabsError: no such draft or precision, the weights are missing, or the cache cannot be written.
    """
    if precision not in ("bf16", "fp32"):
        raise LabsError(f"the draft {name} has no {precision!r} form", "use bf16 or fp32")
    shipped = draft_dir(name)
    if name == "medusa":
        return made_in_cache(
            f"vllm-medusa-{precision}", lambda folder: _write_vllm_medusa(shipped, folder, precision), shipped
        )
    if precision == "bf16":
        return shipped
    return made_in_cache(f"{name}-fp32", lambda folder: _widen(shipped, folder), shipped)


def whole_vocabulary(known: torch.Tensor, token_map: torch.Tensor) -> torch.Tensor:
    """An output matrix [draft vocabulary, hidden] with a row for every token: [vocabulary, hidden]."""
    rows = known.mean(0).repeat(SPEC.vocabulary, 1)
    rows[token_map] = known
    return rows


def _write_vllm_medusa(shipped: Path, folder: Path, precision: str) -> None:
    import torch
    from safetensors.torch import save_file

    from labs_helpers.speculation.files import read_draft

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    config, tensors = read_draft(shipped, "MedusaModel")
    token_map = tensors.pop("token_map")
    wide = {n: whole_vocabulary(t.float(), token_map) if n.startswith("lm_heads") else t for n, t in tensors.items()}
    folder.mkdir()
    save_file({n: t.to(dtype) for n, t in wide.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    del config["truncated_vocab_size"]
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _widen(shipped: Path, folder: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for file in shipped.iterdir():
        if file.suffix == ".json":
            shutil.copyfile(file, folder / file.name)
    config = json.loads((shipped / "config.json").read_text())
    config |= {name: "float32" for name in ("torch_dtype", "dtype") if name in config}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = load_file(shipped / "model.safetensors")
    wide = {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(wide, folder / "model.safetensors", metadata={"format": "pt"})


def medusa_llm(folder: Path | None = None) -> Path:
    """A folder for medusa-llm 0.1: `base`, the course model in fp32, and beside it config.json and medusa_lm_head.pt.

    Its KV cache has a key and a value for every query head, so those that query heads share are repeated in `base`.

    Args:
        folder: of our heads; the shipped ones by default.

    Raises:
        LabsError: the folder holds no Medusa heads, or the cache cannot be written.
    """
    source = folder or draft_dir("medusa")
    return made_in_cache("medusa-llm", lambda made: _write_medusa_llm(source, made), source)


def _write_medusa_llm(source: Path, made: Path) -> None:
    import torch

    from labs_helpers.speculation.medusa_heads import MedusaHeads

    heads = MedusaHeads.load(source)
    _write_base(made / "base")
    state: dict[str, torch.Tensor] = {}
    ours = {name: t.detach() for name, t in heads.state_dict().items()}
    for i in range(heads.heads):
        for j in range(heads.layers):
            for kind in ("weight", "bias"):
                state[f"{i}.{j}.linear.{kind}"] = ours[f"blocks.{i}.layers.{j}.{kind}"]
        known = ours[f"lm_heads.{0 if heads.shared else i}.weight"]
        state[f"{i}.{heads.layers}.weight"] = whole_vocabulary(known, heads.token_map)
    torch.save(state, made / "medusa_lm_head.pt")
    config = {
        "medusa_num_heads": heads.heads,
        "medusa_num_layers": heads.layers,
        "base_model_name_or_path": "base",  # beside it: medusa-llm is run in this folder
    }
    (made / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _write_base(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from labs_helpers.model.checkpoint import llama_config
    from labs_helpers.model.tokenizer import copy_tokenizer

    folder.mkdir(parents=True)
    tensors = {n: t.to(torch.float32) for n, t in load_file(shipped_dir() / "model.safetensors").items()}
    for name in [n for n in tensors if "k_proj" in n or "v_proj" in n]:
        shared = tensors[name].view(SPEC.kv_heads, SPEC.head_dim, SPEC.hidden)
        tensors[name] = shared.repeat_interleave(SPEC.heads // SPEC.kv_heads, 0).reshape(-1, SPEC.hidden).contiguous()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = llama_config("fp32") | {"num_key_value_heads": SPEC.heads, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    copy_tokenizer(shipped_dir(), folder)
