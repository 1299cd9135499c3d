"""Writes the course model as GGUF, the single-file format of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.model.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, SPECIAL_TOKENS, TURN_END

PRECISIONS = ("f32", "f16", "bf16", "q8_0")

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OTHER_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name: str) -> str:
    """A tensor's name in GGUF for its name in transformers, e.g. 'blk.3.attn_q.weight'."""
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def rotary_to_gguf(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a Q or K projection [heads * d, hidden] for llama.cpp's rotary embedding.

    transformers rotates pairs (i, i + d/2), llama.cpp's `llama` architecture neighbours (2i, 2i + 1).
    """
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rotary_from_gguf(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `rotary_to_gguf`."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _add_tokenizer(writer: Any, folder: Path, size: int) -> None:
    from gguf import TokenType

    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    if len(tokens) != size:
        raise ValueError(f"the tokenizer has {len(tokens)} entries, the model {size}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL_TOKENS else TokenType.NORMAL for t in tokens])
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    writer.add_token_merges(merges)
    writer.add_eos_token_id(model["vocab"][TURN_END])
    writer.add_eot_token_id(model["vocab"][TURN_END])
    writer.add_pad_token_id(model["vocab"][END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_architecture(writer: Any, spec: Architecture, file_type: int) -> None:
    writer.add_name(spec.name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(spec.vocabulary)
    writer.add_context_length(spec.positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.feed_forward)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_layer_norm_rms_eps(spec.norm_eps)


def write_gguf(folder: Path, path: Path, precision: str, spec: Architecture = SPEC) -> None:
    """Write the model in `folder` (safetensors and tokenizer) to `path`.

    Matrices take `precision` (f32, f16, bf16 or q8_0); norms stay f32, as llama.cpp expects. There is no output
    tensor: llama.cpp then uses the embedding, which is what tied means.
    """
    import gguf
    from gguf.quants import quantize
    from safetensors.torch import load_file

    kind, file_type = {
        "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
        "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
        "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
        "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    }[precision]
    writer = gguf.GGUFWriter(path, "llama")
    _add_architecture(writer, spec, file_type)
    _add_tokenizer(writer, folder, spec.vocabulary)
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        data = tensor.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            data = rotary_to_gguf(data, spec.heads if "q_proj" in name else spec.kv_heads)
        as_stored = kind if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), quantize(np.ascontiguousarray(data), as_stored), raw_dtype=as_stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
