"""What SGLang calls as `torch.ops.sgl_kernel.NAME`, declared to PyTorch. Other names raise AttributeError with them."""

from __future__ import annotations

import torch

from sgl_kernel import attention, threads

_LIBRARY = torch.library.Library("sgl_kernel", "DEF")

_SCHEMAS = {
    attention.decode_attention_cpu: (
        "(Tensor query, Tensor(a!) key_pool, Tensor(b!) value_pool, float key_scale, float value_scale, "
        "Tensor(c!) output, Tensor? key, Tensor? value, Tensor new_rows, Tensor attn_logits, Tensor req_to_token, "
        "Tensor requests, Tensor seq_lens, float scale, float logit_cap, bool is_cross_attention, "
        "int sliding_window, Tensor? encoder_lens, Tensor? sinks) -> ()"
    ),
    attention.extend_attention_cpu: (
        "(Tensor query, Tensor? key, Tensor? value, Tensor(a!) output, Tensor key_pool, Tensor value_pool, "
        "float key_scale, float value_scale, Tensor req_to_token, Tensor requests, Tensor seq_lens, Tensor new_lens, "
        "Tensor starts, int? longest, float scale, float logit_cap, bool is_cross_attention, int sliding_window, "
        "Tensor? encoder_lens, Tensor? sinks, Tensor? tree_mask, bool is_causal) -> ()"
    ),
    threads.init_cpu_threads_env: "(str cores) -> ()",
    threads.initialize: "(int size, int rank) -> ()",
}

for _function, _schema in _SCHEMAS.items():
    _LIBRARY.define(_function.__name__ + _schema)
    _LIBRARY.impl(_function.__name__, _function, "CompositeExplicitAutograd")
