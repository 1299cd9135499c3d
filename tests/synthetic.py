"""Invented results in the shape a run on two CPU cores leaves behind. For tests of drawing and reporting only."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from labs_helpers.results import CheckOutcome, EngineStatus, LabResult, Load, Measurement, Requirement, Spread

MACHINE = "Test CPU, 2 cores, 24 GiB"
MODEL = "labs-13m"
ENGINES = {"llama.cpp": ("2026.10.1", 1.0), "vllm": ("0.32.0", 0.72), "transformers": ("5.19.0", 0.31)}


def measurement(metric: str = "decode_throughput", value: float = 100.0, **fields: Any) -> Measurement:
    """A valid measured figure; any field can be replaced."""
    fields = {
        "engine": "vllm",
        "engine_version": "0.32.0",
        "model": MODEL,
        "precision": "fp32",
        "machine": MACHINE,
        "n": 5,
        **fields,
    }
    return Measurement(metric=metric, value=value, **fields)


def reference(metric: str = "decode_throughput", value: float = 20.5, **fields: Any) -> Measurement:
    """A valid published figure."""
    fields = {
        "engine": "sglang",
        "model": "Llama-3.1-8B",
        "precision": "FP8",
        "machine": "DGX Spark",
        "source": "reference",
        "cited_from": "a blog, 2025",
        **fields,
    }
    return Measurement(metric=metric, value=value, **fields)


def spread(value: float, share: float = 0.06) -> Spread:
    """An interquartile range around a value."""
    return Spread(low=value * (1 - share), high=value * (1 + share), kind="iqr")


def lab_measurements(seed: int = 0) -> list[Measurement]:
    """What lab 3.3.1 records: start-up, memory, prefill by prompt length, decode, and a load at 1, 4 and 16."""
    noise = random.Random(seed)
    rows: list[Measurement] = []
    for engine, (version, speed) in ENGINES.items():

        def add(
            metric: str,
            value: float,
            n: int,
            load: Load | None = None,
            engine: str = engine,
            version: str = version,
            **fields: Any,
        ) -> None:
            value *= 1 + noise.uniform(-0.05, 0.05)
            rows.append(
                measurement(
                    metric,
                    value,
                    engine=engine,
                    engine_version=version,
                    n=n,
                    load=load or Load(),
                    spread=spread(value) if n > 1 else None,
                    **fields,
                )
            )

        for _start in range(2 if engine == "llama.cpp" else 1):
            add("startup_time", 1.2 if engine == "llama.cpp" else 24 * speed, 1)
            add("memory", 140 / speed**3, 1)
        for length in (64, 256, 1024, 2048):
            prefill = Load(workload=f"prefill-{length}", concurrency=1, prompt_tokens=length, output_tokens=2)
            add("prefill_throughput", 4600 * speed * (1 - length / 9000), 8, prefill)
            add("ttft", length / (4.6 * speed), 8, prefill)
            add("output_throughput", 20 * speed, 8, prefill)
            add("decode_throughput", 300 * speed, 8, prefill)
        add(
            "decode_throughput",
            420 * speed,
            24,
            Load(workload="chat", concurrency=1, prompt_tokens=48, output_tokens=64),
            witness=417 * speed,
        )
        for streams in (1, 4, 16):
            load = Load(workload="chat", concurrency=streams, prompt_tokens=48, output_tokens=64, requests=8 * streams)
            add("output_throughput", 400 * speed * streams**0.55, 8 * streams, load)
            add("ttft", 14 / speed * streams**0.6, 8 * streams, load)
            add(
                "prefill_throughput",
                3000 * speed / streams,
                8 * streams,
                load,
                flags=("includes-queueing",) if streams > 1 else (),
            )
    rows.append(
        measurement(
            "roofline",
            640.0,
            engine="memory",
            engine_version="numpy 2.4.6",
            n=300,
            load=Load(workload="read 52 MiB", arrival="none"),
            spread=Spread(low=300, high=640, kind="minmax"),
        )
    )
    return rows


def lab_result(**fields: Any) -> LabResult:
    """A finished lab with measured, unavailable and failed engines, and references."""
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    given: dict[str, Any] = {
        "lab": "3.3.1",
        "title": "Engine Benchmark",
        "profile": "cpu",
        "scale": "quick",
        "machine": {"label": MACHINE, "kind": "cpu", "cpu": "Test CPU", "cores": 2, "gpu": None},
        "started_at": now,
        "finished_at": now,
        "engines": [
            *(EngineStatus(engine=name, status="measured", version=version) for name, (version, _) in ENGINES.items()),
            EngineStatus(
                engine="sglang",
                status="unavailable",
                reason="needs a CPU kernel package",
                remedy="./labs engines install sglang",
            ),
            EngineStatus(
                engine="tensorrt-llm",
                status="unavailable",
                reason="needs an NVIDIA GPU",
                remedy="use a machine with one",
            ),
        ],
        "measurements": [*lab_measurements(), reference(), reference("prefill_throughput", 7991)],
        "checks": [
            CheckOutcome(exercise="percentile", status="passed"),
            CheckOutcome(exercise="tpot", status="open", message="still to be written"),
        ],
        "requirements": [Requirement(name="three engines", met=True, detail="3 of 3")],
        **fields,
    }
    return LabResult(**given)
