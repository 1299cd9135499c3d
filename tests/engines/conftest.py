from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs_helpers.engines import reaper, run
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec

FAKE_SERVER = Path(__file__).with_name("fake_server.py")


class FakeEngine(Engine):
    """An engine whose options are the faults of fake_server.py."""

    name = "fake"
    title = "Fake"
    precisions = ("fp32", "bf16")

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def availability(self, machine: Any) -> Availability:
        return Availability(True)

    def version(self) -> str:
        return "1.0"

    def model(self, precision: str) -> ModelSpec:
        return ModelSpec("fake-model", "nowhere", precision)

    def launch(self, model: ModelSpec, port: int, **options: Any) -> LaunchSpec:
        argv = [sys.executable, str(FAKE_SERVER), "--port", str(port), "--witness", str(self.witness)]
        for name, value in options.items():
            argv += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
        return LaunchSpec(argv=tuple(argv), ready_timeout_s=30)

    async def counters(self, base_url: str) -> Counters:
        return Counters()

    def processes(self) -> set[int]:
        """Every process the server and its daemons said they are."""
        return {int(path.name[4:]) for path in self.witness.glob("pid-*")}

    def alive(self) -> set[int]:
        return self.processes() & set(reaper.parents())

    def trace(self, name: str) -> str:
        return (self.witness / name).read_text()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path | None:
    """A cache folder of the test's own, and so a lock of its own. Tests of real engines use the real one."""
    if request.node.get_closest_marker("engine"):
        return None
    cache = tmp_path / "cache"
    monkeypatch.setenv("LABS_CACHE", str(cache))
    monkeypatch.setattr(run, "GRACE_S", 1.0)
    return cache


@pytest.fixture
def fake(tmp_path: Path) -> FakeEngine:
    witness = tmp_path / "witness"
    witness.mkdir()
    return FakeEngine(witness)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds; fail with what it last was."""

    def wait(condition: Callable[[], Any], within_s: float = 5.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {within_s} s"
            time.sleep(0.05)

    return wait
