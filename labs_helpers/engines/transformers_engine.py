"""The baseline every engine must beat: transformers' own model behind our own small server.

One request at a time, by design: the file `transformers_server.py` is what serving looks like before anything that
this module teaches.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

from labs_helpers.engines import options
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.engines.models import require_folder
from labs_helpers.engines.prometheus import scrape

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class Transformers(Engine):
    name = "transformers"
    title = "transformers (baseline)"
    precisions = ("fp32", "bf16")

    def availability(self, machine: Machine) -> Availability:
        return Availability(True)

    def version(self) -> str:
        return installed_version("transformers")

    def model(self, precision: str) -> ModelSpec:
        from labs_helpers.model.spec import model_spec

        return model_spec(precision, "safetensors")

    def launch(self, model: ModelSpec, port: int, **given: Any) -> LaunchSpec:
        chosen = options.read(options.Options, self.name, given)
        return LaunchSpec(
            argv=(
                sys.executable,
                "-m",
                "labs_helpers.engines.transformers_server",
                "--model",
                str(require_folder(model.location)),
                "--name",
                model.name,
                "--dtype",
                DTYPES[model.precision],
                "--port",
                str(port),
                "--threads",
                str(chosen.threads),
                "--max-model-len",
                str(chosen.max_model_len),
            ),
            env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(chosen.threads)},
            ready_timeout_s=180,
        )

    async def counters(self, base_url: str) -> Counters:
        """Nothing is cached between requests, so `cached_tokens` is a true zero."""
        raw = await scrape(base_url)
        return Counters(
            prompt_tokens=raw.get("baseline:prompt_tokens_total"),
            cached_tokens=0.0,
            generation_tokens=raw.get("baseline:generation_tokens_total"),
            requests=raw.get("baseline:requests_total"),
            prefill_seconds=raw.get("baseline:prefill_seconds_total"),
            decode_seconds=raw.get("baseline:decode_seconds_total"),
            raw=raw,
        )
