"""llama.cpp, through the wheels of xllamacpp: its own HTTP server, GGUF weights, slots of one context each.

Server API and metrics: github.com/ggml-org/llama.cpp, tools/server/README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labs_helpers.engines import install, options
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.engines.models import require_gguf
from labs_helpers.engines.prometheus import scrape

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

SERVER = Path(__file__).with_name("llamacpp_server.py")


class LlamaCppOptions(options.Options):
    """What a lab may set."""

    slots: int = Field(16, ge=1, le=256, description="requests decoded together; each has max_model_len positions")
    prefix_caching: bool = Field(True, description="keep a slot's KV cache and reuse a common prefix")
    kv_cache_dtype: Literal["auto", "f32", "f16", "bf16", "q8_0", "q4_0"] = Field(
        "auto", description="auto, f32, f16, bf16, q8_0 or q4_0; auto is f32 for fp32 weights, else f16"
    )
    batch: int = Field(2048, ge=32, description="most tokens of one prefill step")
    micro_batch: int = Field(512, ge=32, description="most tokens of one forward pass")
    extra: dict[str, Any] = Field(default_factory=dict, description="xllamacpp.CommonParams fields by dotted name")


class LlamaCpp(Engine):
    name = "llama.cpp"
    title = "llama.cpp"
    precisions = ("fp32", "q8_0", "bf16")

    def availability(self, machine: Machine) -> Availability:
        return install.availability(self.name, self.title, machine)

    def version(self) -> str:
        return install.package_version(self.name, "xllamacpp")

    def model(self, precision: str) -> ModelSpec:
        from labs_helpers.model.spec import model_spec

        return model_spec(precision, "gguf")

    def launch(self, model: ModelSpec, port: int, **given: Any) -> LaunchSpec:
        chosen = options.read(LlamaCppOptions, self.name, given)
        kv_type = chosen.kv_cache_dtype
        if kv_type == "auto":
            kv_type = "f32" if model.precision == "fp32" else "f16"
        settings = {
            "model.path": str(require_gguf(model.location)),
            "model_alias": [model.name],
            "port": port,
            "hostnames": ["127.0.0.1"],
            "n_ctx": chosen.slots * chosen.max_model_len,  # llama.cpp splits its context over the slots
            "n_parallel": chosen.slots,
            "n_batch": chosen.batch,
            "n_ubatch": chosen.micro_batch,
            "cpuparams.n_threads": chosen.threads,
            "cpuparams_batch.n_threads": chosen.threads,
            "cache_type_k": kv_type,
            "cache_type_v": kv_type,
            "cache_prompt": chosen.prefix_caching,
            # prompts put aside in RAM and restored later would be a second prefix cache beside the slots'
            "cache_ram_mib": 0,
            "endpoint_metrics": True,
            "endpoint_slots": True,
            "ui": False,
            "offline": True,
            **chosen.extra,
        }
        return LaunchSpec(
            argv=(str(install.python(self.name)), "-I", str(SERVER), json.dumps(settings)),
            env={"OMP_NUM_THREADS": str(chosen.threads)},
            ready_timeout_s=120,
        )

    async def counters(self, base_url: str) -> Counters:
        """llama.cpp counts a prompt's cached tokens apart from the ones it computed; `prompt_tokens` here is both."""
        raw = await scrape(base_url)
        cached = raw.get("llamacpp:prompt_tokens_cached_total")
        computed = raw.get("llamacpp:prompt_tokens_total")
        return Counters(
            prompt_tokens=None if computed is None else computed + (cached or 0.0),
            cached_tokens=cached,
            generation_tokens=raw.get("llamacpp:tokens_predicted_total"),
            prefill_seconds=raw.get("llamacpp:prompt_seconds_total"),
            decode_seconds=raw.get("llamacpp:tokens_predicted_seconds_total"),
            raw=raw,
        )
