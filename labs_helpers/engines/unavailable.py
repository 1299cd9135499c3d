"""What an engine is that the table must name but no release of today can start: it refuses, and says why."""

from __future__ import annotations

from typing import Any, NoReturn

from labs_helpers.engines.base import Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.errors import LabsError


class UnavailableEngine(Engine):
    """Subclasses say in `availability` why not, and what to do; every other method raises LabsError with that."""

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
