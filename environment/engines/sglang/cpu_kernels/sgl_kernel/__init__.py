"""The course's stand-in for SGLang's CPU kernels, of which no wheel is published: plain PyTorch, made to be read.

SGLang 0.5.23 imports a package of this name. `attention` computes over the paged KV cache, `table` moves row numbers
in the request-to-token table, `tree` builds and verifies the token trees of speculation. What is not here raises with
its own name. The server itself is unmodified.

Never beside a GPU: there the real package, `sglang-kernel`, does this.
"""

from __future__ import annotations

from typing import NoReturn

import torch

if torch.cuda.is_available():
    raise ImportError("the course's CPU kernels for SGLang are not for a machine with a GPU: run SGLang's container")

from sgl_kernel import operators as operators
from sgl_kernel.missing import missing
from sgl_kernel.table import (
    assign_draft_cache_locs_contiguous_cpu,
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    build_draft_decode_metadata_cpu,
    copy_all_layer_kv_cache_cpu,
)
from sgl_kernel.tree import (
    build_tree_kernel_efficient_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
    verify_tree_greedy_cpu,
)

rotate_input_ids_cpu = missing("rotate_input_ids_cpu")

__all__ = [
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_draft_decode_metadata_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "rotate_input_ids_cpu",
    "verify_tree_greedy_cpu",
]


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(f"the course's CPU kernels for SGLang have no operation {name!r}")
