"""TensorRT-LLM: in the table of engines, not yet startable. It has no CPU inference; a build needs the GPU too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labs_helpers.engines.base import Availability
from labs_helpers.engines.unavailable import UnavailableEngine

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


class TensorRTLLM(UnavailableEngine):
    name = "tensorrt-llm"
    title = "TensorRT-LLM"

    def availability(self, machine: Machine) -> Availability:
        if machine.gpu is None:
            return Availability(
                False,
                "TensorRT-LLM needs an NVIDIA GPU, and none was found",
                "run this lab on a DGX Spark or another machine with an NVIDIA GPU",
            )
        return Availability(
            False,
            "TensorRT-LLM runs in a container, and container engines come in a later release",
            "use vllm, llama.cpp or transformers until then",
        )
