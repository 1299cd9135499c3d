"""Ollama, by its native API: a server that runs already is used, else one is started from a binary that is found.

Ollama comes from its own installer, not from a package index, so the course does not install it.
API: github.com/ollama/ollama, docs/api.md. It has no metrics page; its durations come with every answer (`Timings`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from labs_helpers.engines import options, ports
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.engines.models import require_gguf
from labs_helpers.errors import LabsError
from labs_helpers.paths import cache_dir

if TYPE_CHECKING:
    from labs_helpers.machine import Machine

DEFAULT_PORT = 11434


@dataclass(frozen=True)
class Timings:
    """What Ollama says about one answer; durations in nanoseconds there, in seconds here. None: it did not say.

    With a warm prompt cache `prompt_tokens` includes the cached ones and `prefill_seconds` does not pay for them.
    """

    total_seconds: float | None
    load_seconds: float | None
    prompt_tokens: int | None
    prefill_seconds: float | None
    generation_tokens: int | None
    decode_seconds: float | None

    @classmethod
    def of(cls, final: Mapping[str, Any]) -> Timings:
        """From the `done: true` line; any field may be absent."""

        def seconds(key: str) -> float | None:
            return None if final.get(key) is None else float(final[key]) / 1e9

        return cls(
            total_seconds=seconds("total_duration"),
            load_seconds=seconds("load_duration"),
            prompt_tokens=final.get("prompt_eval_count"),
            prefill_seconds=seconds("prompt_eval_duration"),
            generation_tokens=final.get("eval_count"),
            decode_seconds=seconds("eval_duration"),
        )


class OllamaOptions(options.Options):
    """What a lab may set; fixed when the server starts, so ignored with a server that runs already."""

    slots: int = Field(16, ge=1, description="OLLAMA_NUM_PARALLEL; Ollama's own default is 1")


class Ollama(Engine):
    name = "ollama"
    title = "Ollama"
    wire = "ollama-ndjson"  # durations and counts come with its native stream only
    precisions = ("fp32", "q8_0", "bf16")

    def availability(self, machine: Machine) -> Availability:
        if self.running_at() or shutil.which("ollama"):
            return Availability(True)
        return Availability(
            False,
            f"no Ollama server on port {_port()} and no ollama program",
            "install it from https://ollama.com/download, or set OLLAMA_HOST to a running one",
        )

    def version(self) -> str:
        import re
        import subprocess

        if url := self.running_at():
            return str(_get(_port_of(url), "/api/version")["version"])
        if not (program := shutil.which("ollama")):
            raise LabsError("Ollama is not installed", "install it from https://ollama.com/download")
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
        found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
        return found[0] if found else "unknown"

    def model(self, precision: str) -> ModelSpec:
        from labs_helpers.model.spec import model_spec

        return model_spec(precision, "gguf")

    def running_at(self) -> str | None:
        port = _port()
        if ports.get_status(port, "/api/version") != 200:
            return None
        return f"http://127.0.0.1:{port}"

    def launch(self, model: ModelSpec, port: int, **given: Any) -> LaunchSpec:
        chosen = options.read(OllamaOptions, self.name, given)
        require_gguf(model.location)
        if not (program := shutil.which("ollama")):
            raise LabsError("Ollama is not installed", "install it from https://ollama.com/download")
        return LaunchSpec(
            argv=(program, "serve"),
            health_path="/api/version",
            ready_timeout_s=60,
            env={
                "OLLAMA_HOST": f"127.0.0.1:{port}",
                "OLLAMA_MODELS": str(cache_dir() / "ollama"),
                "OLLAMA_NUM_PARALLEL": str(chosen.slots),
                "OLLAMA_CONTEXT_LENGTH": str(chosen.max_model_len),
                "OLLAMA_KEEP_ALIVE": "-1",
                "OMP_NUM_THREADS": str(chosen.threads),
            },
        )

    def load(self, base_url: str, model: ModelSpec) -> None:
        """Import the GGUF file, unless the server has a model of that name and content already.

        Raises:
            LabsError: the server refuses the file.
        """
        port, path = _port_of(base_url), require_gguf(model.location)
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        if ports.get_status(port, f"/api/blobs/{digest}", method="HEAD") != 200:
            status, text = ports.post(port, f"/api/blobs/{digest}", path.read_bytes())
            if status not in (200, 201):
                raise LabsError(f"Ollama does not take {path} ({status}): {text[:200]}", "look at Ollama's own log")
        recipe = {"model": model.name, "files": {path.name: digest}, "stream": False}
        status, text = ports.post(port, "/api/create", recipe)
        if status != 200 or '"success"' not in text:
            raise LabsError(f"Ollama makes no model of {path} ({status}): {text[:200]}", "look at Ollama's own log")

    async def counters(self, base_url: str) -> Counters:
        """Ollama keeps no totals: every field is None. Its own times come with each answer of `generate`."""
        return Counters()


async def generate(
    base_url: str,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    raw: bool = True,
) -> AsyncIterator[str | Timings]:
    """Text as it comes from `POST /api/generate` (NDJSON), and at the end the server's own `Timings`.

    Raises:
        LabsError: no answer, an error in the stream, or a stream without an end.
    """
    import aiohttp

    body = {
        "model": model,
        "prompt": prompt,
        "raw": raw,
        "stream": True,
        "options": {"num_predict": max_tokens, "temperature": temperature},
    }
    try:
        async with aiohttp.ClientSession() as session, session.post(base_url + "/api/generate", json=body) as answer:
            async for line in lines(answer.content):
                if "error" in line:
                    raise LabsError(f"Ollama: {line['error']}", "is the model loaded? see /api/tags")
                if line.get("response"):
                    yield line["response"]
                if line.get("done"):
                    yield Timings.of(line)
                    return
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LabsError(
            f"Ollama at {base_url} does not answer: {error or type(error).__name__}", "is it still running?"
        ) from error
    raise LabsError(f"Ollama at {base_url} broke off in the middle of an answer", "look at its log")


async def lines(content: Any) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an NDJSON stream, however it was cut into packets and however long a line is."""
    pending = b""
    async for packet in content.iter_any():
        *whole, pending = (pending + packet).split(b"\n")
        for line in filter(None, map(bytes.strip, whole)):
            yield json.loads(line)
    if pending.strip():
        yield json.loads(pending)


def tags(base_url: str) -> list[str]:
    """Names of the models a server has."""
    return [str(model["name"]) for model in _get(_port_of(base_url), "/api/tags")["models"]]


def _get(port: int, path: str) -> dict[str, Any]:
    status, text = ports.request("GET", port, path)
    if status != 200:
        raise LabsError(f"Ollama on port {port} does not answer {path} ({status}): {text[:200]}", "is it running?")
    return dict(json.loads(text))


def _port() -> int:
    """The port of OLLAMA_HOST; only this machine's servers are used, so its host part does not matter."""
    host = os.environ.get("OLLAMA_HOST", "")
    try:
        return urlsplit(host if "//" in host else f"//{host}").port or DEFAULT_PORT
    except ValueError:
        return DEFAULT_PORT


def _port_of(base_url: str) -> int:
    return urlsplit(base_url).port or DEFAULT_PORT
