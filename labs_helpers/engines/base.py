"""What every engine is to this course: a thing that can be available, launched, spoken to and stopped.

An `Engine` only *describes* (is it here, how is it started, how are its counters read); `process.py` and
`container.py` are the two ways to run what it describes; a `Server` is one that answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from labs_helpers.machine import Machine


@dataclass(frozen=True)
class ModelSpec:
    """A model as one engine loads it.

    `location` is a directory of safetensors, a GGUF file, or a hub id; `bytes_per_token` are the weight bytes that
    decoding one token at batch 1 must read (embedding rows that are only gathered do not count), the denominator of
    the roofline.
    """

    name: str
    location: str
    precision: str
    parameters: int = 0
    bytes_per_token: int = 0


@dataclass(frozen=True)
class LaunchSpec:
    """How to start one server process. `argv` is a list for the kernel, never a shell string."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    ready_timeout_s: float = 300.0
    cwd: Path | None = None
    scheme: Literal["http"] = "http"


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here; if not, why, and the command that changes it."""

    ok: bool
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Counters:
    """An engine's own running totals since it started: the witness beside the client's figures.

    A field is None where the engine does not count that. `raw` holds every sample of its metrics page by name.
    """

    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    generation_tokens: float | None = None
    requests: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    raw: Mapping[str, float] = field(default_factory=dict)

    def since(self, before: Counters) -> Counters:
        """What was added after `before` was read."""

        def diff(a: float | None, b: float | None) -> float | None:
            return None if a is None or b is None else a - b

        return Counters(
            prompt_tokens=diff(self.prompt_tokens, before.prompt_tokens),
            cached_tokens=diff(self.cached_tokens, before.cached_tokens),
            generation_tokens=diff(self.generation_tokens, before.generation_tokens),
            requests=diff(self.requests, before.requests),
            prefill_seconds=diff(self.prefill_seconds, before.prefill_seconds),
            decode_seconds=diff(self.decode_seconds, before.decode_seconds),
            raw={k: v - before.raw.get(k, 0.0) for k, v in self.raw.items()},
        )


class Engine(ABC):
    """One inference engine. Subclasses store nothing but names; every method may be called at any time."""

    name: ClassVar[str]
    title: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("bf16",)
    """Precisions this engine can serve on the CPU, the default first."""

    @abstractmethod
    def availability(self, machine: Machine) -> Availability:
        """Whether this engine can run on `machine` now. Fast: looks at files, imports nothing heavy."""

    @abstractmethod
    def version(self) -> str:
        """The installed version, e.g. '0.32.0'. Raises LabsError when it is not installed."""

    @abstractmethod
    def model(self, precision: str) -> ModelSpec:
        """The course model in the form this engine loads, written to the cache when needed."""

    @abstractmethod
    def launch(self, model: ModelSpec, port: int, **options: Any) -> LaunchSpec:
        """The command that serves `model` on 127.0.0.1:`port`.

        Raises:
            LabsError: an option this engine does not know, or a value it cannot take.
        """

    @abstractmethod
    async def counters(self, base_url: str) -> Counters:
        """The server's own totals. Raises LabsError when it does not answer."""

    def running_at(self) -> str | None:
        """Base URL of a server of this engine that runs already and is to be used as it is; None: start one."""
        return None

    def load(self, base_url: str, model: ModelSpec) -> None:  # noqa: B027
        """Bring `model` into a server that answers. Most engines load their model while they start: nothing to do."""


@dataclass(frozen=True)
class Server:
    """A server that answers. Made by `labs_helpers.engines.process.serve`, valid until its `with` block ends."""

    base_url: str
    """e.g. 'http://127.0.0.1:40123', without /v1."""
    engine: Engine
    version: str
    model: ModelSpec
    log_path: Path
    pid: int
    startup_s: float
    """Seconds from spawning the process to the first successful health answer."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        return self.model.precision

    async def counters(self) -> Counters:
        """The engine's own totals since it started."""
        return await self.engine.counters(self.base_url)

    def memory_bytes(self) -> int:
        """PSS of the server's whole process tree: shared pages are counted once, divided among their users."""
        from labs_helpers.engines.process import tree_pss

        return tree_pss(self.pid)
