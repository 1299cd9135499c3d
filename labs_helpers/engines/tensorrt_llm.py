"""TensorRT-LLM: in the table of engines, not yet startable. It has no CPU inference; a build needs the GPU too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


class TensorRTLLM(Engine):
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

    def version(self) -> str:
        self._refuse()

    def model(self, precision: str) -> ModelSpec:
        self._refuse()

    def launch(self, model: ModelSpec, port: int, **options: Any) -> LaunchSpec:
        self._refuse()

    async def counters(self, base_url: str) -> Counters:
        self._refuse()

    def _refuse(self) -> NoReturn:
        from labs_helpers.machine import detect

        found = self.availability(detect())
        raise LabsError(f"{self.title} cannot run here: {found.reason}", found.remedy)
