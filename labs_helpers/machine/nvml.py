"""What NVIDIA's management library says about the first GPU, if there is one and its driver answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labs_helpers.machine.memory import Memory


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU."""

    name: str
    capability: tuple[int, int] | None = None
    driver: str = ""
    memory_total: int | None = None
    """Bytes of its own memory; None where it has none (unified memory, as on a DGX Spark)."""
    count: int = 1


@contextmanager
def _session() -> Iterator[Any]:
    """The `pynvml` module between init and shutdown.

    Raises:
        pynvml.NVMLError: the driver or its library is missing or does not answer.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def query_gpu() -> tuple[Gpu | None, str]:
    """The first GPU, and why there is none where there is none ('' when one was found)."""
    try:
        import pynvml
    except ImportError:
        return None, "the nvidia-ml-py package is missing"
    try:
        with _session() as nvml:
            count = nvml.nvmlDeviceGetCount()
            if count == 0:
                return None, "the NVIDIA driver sees no GPU"
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            capability = _optional(nvml.nvmlDeviceGetCudaComputeCapability, handle)
            memory = _memory(handle)
            return Gpu(
                name=_text(nvml.nvmlDeviceGetName(handle)),
                capability=(int(capability[0]), int(capability[1])) if capability else None,
                driver=_text(_optional(nvml.nvmlSystemGetDriverVersion) or ""),
                memory_total=memory[0] if memory else None,
                count=int(count),
            ), ""
    except pynvml.NVMLError_LibraryNotFound:
        return None, "no NVIDIA driver library (libnvidia-ml.so) was found"
    except pynvml.NVMLError_DriverNotLoaded:
        return None, "the NVIDIA driver is installed but not loaded"
    except pynvml.NVMLError_NoPermission:
        return None, "this user may not talk to the NVIDIA driver"
    except pynvml.NVMLError as error:
        return None, f"the NVIDIA driver answers with an error: {error}"


def gpu_memory() -> Memory | None:
    """The first GPU's own memory, or None without a GPU or where NVML does not know (unified memory)."""
    from labs_helpers.machine.memory import Memory

    try:
        import pynvml
    except ImportError:
        return None
    try:
        with _session() as nvml:
            found = _memory(nvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None
    return Memory(found[0], found[1], "NVML") if found else None


def _memory(handle: Any) -> tuple[int, int] | None:
    """(total, free) in bytes; None when the driver answers NotSupported, `[N/A]` or nothing of use."""
    import pynvml

    info = _optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    total, free = getattr(info, "total", None), getattr(info, "free", None)
    if not isinstance(total, int) or not isinstance(free, int) or total <= 0:
        return None
    return total, free


def _optional(call: Any, *arguments: Any) -> Any:
    """The answer of one NVML call, or None where this GPU does not support it."""
    import pynvml

    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
