"""The decode rate that no engine can exceed, because every token reads every weight.

At batch 1 the rate is at most bandwidth / bytes per token: the roofline. A figure above it is not plain decoding of
those bytes; the precision, the model or the measurement is another than was said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from labs_helpers.errors import LabsError
from labs_helpers.machine.memory_bandwidth import Bandwidth, Device, bandwidth
from labs_helpers.results import Measurement, Spread

if TYPE_CHECKING:
    from labs_helpers.machine.detection import Machine


def roofline(read: Bandwidth | float, bytes_per_token: float) -> float:
    """Tokens per second that decoding at batch 1 cannot exceed: GB/s over the bytes that one token reads.

    >>> round(roofline(273.0, 16e9))   # Llama-3.1-8B in bf16 on a DGX Spark
    17

    Raises:
        LabsError: a value that is not positive.
    """
    rate = read.gb_per_s if isinstance(read, Bandwidth) else read
    if rate <= 0 or bytes_per_token <= 0:
        raise LabsError(
            f"no roofline from {rate} GB/s and {bytes_per_token} bytes per token",
            "give a positive bandwidth and the bytes of weights that one token reads",
        )
    return rate * 1e9 / bytes_per_token


def kv_bytes(*, layers: int, kv_heads: int, head_dim: int, context: int, bytes_per_element: float = 2) -> int:
    """Bytes of KV cache that one token reads at this context length: keys and values of every layer."""
    return int(2 * layers * kv_heads * head_dim * bytes_per_element * context)


def bytes_per_token(weight_bytes: int, kv_cache_bytes: int = 0, batch: int = 1) -> float:
    """Bytes read per generated token: the weights are shared by the batch, the KV cache is not."""
    return weight_bytes / batch + kv_cache_bytes


class Weights(Protocol):
    """What a roofline needs to know of a model; `engines.base.ModelSpec` fits."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def bytes_per_token(self) -> int: ...


def roofline_measurement(
    machine: Machine,
    model: Weights,
    *,
    kv_cache_bytes: int = 0,
    device: Device = "auto",
) -> Measurement:
    """The decode roofline of a model on this machine as a record, at the bandwidth for weights of its size.

    Raises:
        LabsError: the model does not say how many bytes a token reads.
    """
    band = bandwidth(machine, model.bytes_per_token, device=device)
    per_token = bytes_per_token(model.bytes_per_token, kv_cache_bytes)
    base = band.as_measurement(machine)
    spread = None
    if base.spread:
        spread = Spread(
            low=roofline(base.spread.low, per_token), high=roofline(base.spread.high, per_token), kind=base.spread.kind
        )
    return Measurement(
        **{
            **base.model_dump(),
            "metric": "roofline",
            "unit": "tok/s",
            "spread": spread,
            "value": roofline(band, per_token),
            "model": model.name,
            "precision": model.precision,
        }
    )
