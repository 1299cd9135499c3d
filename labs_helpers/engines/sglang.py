"""SGLang on the CPU: the unmodified server, with the course's own CPU kernels beside it.

SGLang publishes no CPU kernels. Ours, in plain PyTorch, lie in environment/engines/sglang/cpu_kernels and are put on
the path of the server's processes only; on a machine with a GPU they are never used, SGLang runs in its container
there (`sglang_container.py`). Environment: docs.sglang.io, "CPU Servers".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labs_helpers.engines import install, options
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.engines.models import require_folder
from labs_helpers.engines.prometheus import scrape
from labs_helpers.engines.sglang_options import SGLangOptions
from labs_helpers.errors import LabsError
from labs_helpers.paths import cache_dir

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

KERNELS = install.PINS / "sglang" / "cpu_kernels"
RENDEZVOUS = "rendezvous"
"""A file for the one process that computes to meet itself in."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class SGLangCPUOptions(SGLangOptions):
    """What a lab may set on the CPU."""

    max_total_tokens: int | None = Field(32_768, ge=64, description="tokens the KV pool holds")
    attention_backend: Literal["intel_amx", "torch_native"] = Field(
        "intel_amx",
        description="intel_amx: the course's kernels, which compute new tokens only; torch_native: SGLang's own in "
        "PyTorch, which pads every prefill to the whole length, so that a cached prefix saves nothing",
    )


class SGLang(Engine):
    name = "sglang"
    title = "SGLang"
    precisions = ("fp32", "bf16")

    def availability(self, machine: Machine) -> Availability:
        if machine.gpu is not None:
            return Availability(
                False,
                "beside a GPU SGLang runs in a container, and container engines come in a later release",
                "use vllm, llama.cpp or transformers until then",
            )
        return install.availability(self.name, self.title, machine)

    def version(self) -> str:
        return install.package_version(self.name, "sglang")

    def model(self, precision: str) -> ModelSpec:
        from labs_helpers.model.spec import model_spec

        return model_spec(precision, "safetensors")

    def launch(self, model: ModelSpec, port: int, **given: Any) -> LaunchSpec:
        from labs_helpers import machine

        if machine.detect().gpu is not None:
            found = self.availability(machine.detect())
            raise LabsError(f"{self.title} cannot run here: {found.reason}", found.remedy)
        chosen = options.read(SGLangCPUOptions, self.name, given)
        _require_draft(chosen)
        argv = [
            str(install.python(self.name)),
            "-m",
            "sglang.launch_server",
            *chosen.arguments(model, path=str(require_folder(model.location)), host="127.0.0.1", port=port),
            "--device",
            "cpu",
            "--attention-backend",
            chosen.attention_backend,
            "--dtype",
            DTYPES[model.precision],
            # its scheduler polls without a pause otherwise, and keeps a core from the client
            "--sleep-on-idle",
        ]
        kept = _kept()
        (kept / RENDEZVOUS).unlink(missing_ok=True)  # one that was killed left it
        return LaunchSpec(
            argv=(*argv, *chosen.extra_args),
            env=self.environment(chosen.threads),
            ready_timeout_s=600,
            # the server puts its working directory on its path: this one holds no module by chance
            cwd=kept,
        )

    def environment(self, threads: int) -> dict[str, str]:
        """What a process of SGLang's environment needs set on the CPU, the server or any other of its programs."""
        kept = _kept()
        return {
            "PYTHONPATH": str(KERNELS),
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SGLANG_USE_CPU_ENGINE": "1",
            # the models it looks at first; otherwise every start imports all it knows
            "SGLANG_EXTERNAL_MODEL_PACKAGE": "labs_sglang_models",
            # what it would compile at first use costs minutes and gains nothing at this size
            "TORCHDYNAMO_DISABLE": "1",
            "OMP_NUM_THREADS": str(threads),
            # every step gathers megabytes: memory given back to the system in between costs more than the gathering
            "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
            "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
            "SGLANG_CPU_OMP_THREADS_BIND": options.cpu_list(threads),
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            # PyTorch's rendezvous listens on every address when it is a port; as a file it does not
            "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": f"file://{kept / RENDEZVOUS}",
            # ninja, which builds the n-gram speculation at first use, and where that is kept
            "PATH": f"{install.python(self.name).parent}:{os.environ.get('PATH', os.defpath)}",
            "TVM_FFI_CACHE_DIR": str(kept / "tvm-ffi"),
            "SGLANG_CACHE_DIR": str(kept / "sglang"),
            "TRITON_CACHE_DIR": str(kept / "triton"),
        }

    async def counters(self, base_url: str) -> Counters:
        raw = await scrape(base_url)
        first = raw.get("sglang:time_to_first_token_seconds_sum")
        whole = raw.get("sglang:e2e_request_latency_seconds_sum")
        return Counters(
            prompt_tokens=raw.get("sglang:prompt_tokens_total"),
            # not on the page before the first hit
            cached_tokens=raw.get("sglang:cached_tokens_total", 0.0),
            generation_tokens=raw.get("sglang:generation_tokens_total"),
            requests=raw.get("sglang:num_requests_total"),
            # SGLang's time to the first token includes the wait in its queue
            prefill_seconds=first,
            decode_seconds=None if first is None or whole is None else whole - first,
            raw=raw,
        )


def _kept() -> Path:
    """The folder for what SGLang keeps between two starts."""
    folder = cache_dir() / "sglang"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _require_draft(chosen: SGLangCPUOptions) -> None:
    """Speculation needs a draft model that is there, or a compiler.

    Raises:
        LabsError: it is not.
    """
    if chosen.speculative is None:
        return
    if chosen.speculative.algorithm == "NGRAM" and shutil.which("g++") is None:
        raise LabsError(
            "SGLang compiles its n-gram speculation at first use, and there is no C++ compiler",
            "sudo apt-get install g++",
        )
    if (path := chosen.speculative.draft_model_path) is not None:
        folder = Path(path)
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise LabsError(
                f"the draft model {path} is not a folder with config.json and *.safetensors",
                "give the folder of a draft model as draft_model_path",
            )
