"""One matrix, laid out once for the processor: what makes a product with few rows as fast as memory allows.

A decoding step reads every weight once, so its time is the weights' bytes over the bandwidth, if the product's inner
loop gets out of the way. oneDNN's blocked layout does (`mkldnn::_reorder_linear_weight`, what torch.compile uses when
it freezes a model): up to six rows cost hardly more than one, where `torch.mm` pays for the second row already.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch.nn import functional

WeightType = Literal["fp32", "bf16", "int8"]

ROWS = 6
"""Rows that the layout is made for; others work as well."""
FEWEST = 4
"""With fewer rows the product is slower than with these (oneDNN 3.x on AVX-512: one row 4.4 ms for all matrices of the
course model, four rows 3.5 ms), so that a lone row, plain decoding's, gets empty ones beside it."""


def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's packed products."""
    return bool(torch.backends.mkldnn.is_available())


class Linear:
    """y = x Wᵀ + b for fp32 x [rows, in], the result fp32 [rows, out].

    Args:
        weight: [out, in], any floating type.
        bias: [out] or None.
        kind: how the weights are kept and multiplied. `int8` rounds weights per row and inputs per call: a quarter of
            the bytes, for drafts only, since a draft's rounding costs acceptance and never correctness.
        silu: apply SiLU to the result.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, kind: WeightType = "fp32", silu: bool = False
    ) -> None:
        self.kind, self.silu = kind, silu
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.bytes = weight.numel() * {"fp32": 4, "bf16": 2, "int8": 1}[kind]
        self._op, self._weight = _prepare(weight, self.bias, kind)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "fp32":
            if self._op is not None:
                rows = len(x)
                if rows < FEWEST:
                    x = _padded(x)
                y: torch.Tensor = self._op(x, self._weight, self.bias, "swish" if self.silu else "none", [], "")
                return y[:rows] if rows < FEWEST else y
            y = functional.linear(x, self._weight, self.bias)
        elif self.kind == "int8":
            y = self._op(x, self._weight, True)
        else:
            x = x.bfloat16()
            if self._op is not None:
                return self._op(x, self._weight, self.bias, "swish" if self.silu else "none", [], "").float()
            y = functional.linear(x, self._weight, self.bias).float()
        return functional.silu(y, inplace=True) if self.silu else y

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """residual + x Wᵀ + b, as one operation where there is one; `residual` is left as it was."""
        if self.kind == "fp32" and self._op is not None and not self.silu and len(x) >= FEWEST:
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self.bias, "add")
            return y
        return self(x).add_(residual)


def _padded(x: torch.Tensor) -> torch.Tensor:
    """[FEWEST, width] with x on top, in a buffer that is used again: rows of a product do not touch each other, so what
    stands below does not matter."""
    width = x.shape[1]
    if width not in _buffers:
        _buffers[width] = torch.zeros(FEWEST, width)
    buffer = _buffers[width]
    buffer[: len(x)] = x
    return buffer


_buffers: dict[int, torch.Tensor] = {}


def _prepare(weight: torch.Tensor, bias: torch.Tensor | None, kind: WeightType) -> tuple[Any, Any]:
    if kind == "int8":
        scales = (weight.abs().amax(1) / 127).clamp_min(1e-8).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch means to move these functions elsewhere
            zeros = torch.zeros(len(weight), dtype=torch.long)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_dynamic, torch.ops.quantized.linear_prepack(rounded, bias)
    if has_onednn() and (kind == "fp32" or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return torch.ops.mkldnn._linear_pointwise.default, torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return None, weight
