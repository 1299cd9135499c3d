"""SGLang: in the table of engines, not yet startable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


class SGLang(Engine):
    name = "sglang"
    title = "SGLang"

    def availability(self, machine: Machine) -> Availability:
        if machine.gpu is None:
            return Availability(
                False,
                "SGLang publishes no CPU kernels; the course's own come with lab 3.3.2",
                "use vllm, llama.cpp or transformers until then",
            )
        return Availability(
            False,
            "SGLang runs in a container, and container engines come in a later release",
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
