"""A lab of the tests: two exercises, one question, one measurement of a server that needs no engine.

Imported by the tests and by the first cell of its own notebook, inside the sandbox; both register it in the syllabus.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labs_helpers import syllabus
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec
from labs_helpers.errors import LabsError
from labs_helpers.exercises import Case, equals, raises
from labs_helpers.results import Load, Measurement
from labs_helpers.syllabus import Entry, LabSpec
from labs_helpers.syllabus.requirements import engines_measured

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class ToyEntry(Entry):
    folder: Path = HERE

    @property
    def source(self) -> Path:
        return HERE.parent / "toy_course" / "lab_3_3_9.py"

    @property
    def student(self) -> Path:
        return self.folder / "lab-3.3.9-toy.ipynb"

    @property
    def solution(self) -> Path:
        return self.folder / "solution-3.3.9-toy.ipynb"

    def spec(self) -> LabSpec:
        return SPEC


class ToyEngine(Engine):
    name = "toy"
    title = "Toy"
    precisions = ("fp32",)

    def availability(self, machine) -> Availability:
        return Availability(ok=True)

    def version(self) -> str:
        return "1.0"

    def model(self, precision: str) -> ModelSpec:
        return ModelSpec("toy", "", precision)

    def launch(self, model: ModelSpec, port: int, **options) -> LaunchSpec:
        return LaunchSpec((sys.executable, "-I", str(HERE / "toy_server.py"), str(port)))

    async def counters(self, base_url: str) -> Counters:
        try:
            with urllib.request.urlopen(base_url + "/metrics", timeout=2) as answer:  # noqa: ASYNC210
                found = json.loads(answer.read(10_000))
        except OSError as error:
            raise LabsError(f"no metrics from {base_url}") from error
        return Counters(prompt_tokens=found["prompt"], generation_tokens=found["generated"])


SPEC = LabSpec(
    id="3.3.9",
    title="Toy",
    engines=(),
    requirements=(engines_measured("output_throughput", 1), engines_measured("completion_tokens", 1)),
    cases={
        "double": (Case("two", equals(4), (2,)), Case("a text is refused", raises("TypeError"), ("x",))),
        "total": (Case("three numbers", equals(6), ([1, 2, 3],)), Case("none", equals(0), ([],))),
    },
)


def register(folder: Path = HERE) -> ToyEntry:
    """Add the lab to the syllabus of this process."""
    entry = ToyEntry("3.3.9", "toy", "Toy lab", folder)
    syllabus.CONTENTS = (*(e for e in syllabus.CONTENTS if e.id != entry.id), entry)
    return entry


@contextmanager
def serve(port: int = 8199):
    """Start the toy server and yield its URL once it answers."""
    process = subprocess.Popen(list(ToyEngine().launch(ToyEngine().model("fp32"), port).argv))
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            try:
                urllib.request.urlopen(url + "/metrics", timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait()


def generate(url: str, tokens: int) -> int:
    """Ask for tokens; returns how many came."""
    with urllib.request.urlopen(f"{url}/generate?tokens={tokens}", timeout=30) as answer:
        return json.loads(answer.read())["tokens"]


def measure(url: str, tokens: int) -> list[Measurement]:
    """Two figures of one request."""
    started = time.perf_counter()
    got = generate(url, tokens)
    took = time.perf_counter() - started
    common = {
        "engine": "toy",
        "engine_version": "1.0",
        "machine": "test",
        "n": 1,
        "precision": "fp32",
        "load": Load(concurrency=1, requests=1, output_tokens=got),
    }
    return [
        Measurement(metric="output_throughput", value=got / took, **common),
        Measurement(metric="completion_tokens", value=got, **common),
    ]
