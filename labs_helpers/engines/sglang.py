"""SGLang: in the table of engines, not yet startable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labs_helpers.engines.base import Availability
from labs_helpers.engines.unavailable import UnavailableEngine

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


class SGLang(UnavailableEngine):
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
