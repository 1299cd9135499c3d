"""What a lab leaves behind: typed measurements with provenance, as JSON and CSV.

Nothing else passes between a notebook and the outside. A `Measurement` is either *measured* (it has a sample
count, an engine version and a machine) or a *reference* (it has a citation); the validators hold the two apart.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labs_helpers.errors import LabsError

SCHEMA_VERSION = 1


class Metric(BaseModel):
    """A metric of the field: its standard name, unit and which direction is better."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(name="startup_time", title="Start-up time", unit="s", better="lower"),
        Metric(name="memory", title="Memory (PSS of the process tree)", unit="MiB", better="lower"),
        Metric(name="ttft", title="Time to first token (TTFT)", unit="ms", better="lower"),
        Metric(name="tpot", title="Time per output token (TPOT)", unit="ms", better="lower"),
        Metric(name="itl", title="Inter-token latency (ITL)", unit="ms", better="lower"),
        Metric(name="e2e", title="End-to-end latency", unit="ms", better="lower"),
        Metric(name="prefill_throughput", title="Prefill", unit="tok/s", better="higher"),
        Metric(name="decode_throughput", title="Decode, one stream", unit="tok/s", better="higher"),
        Metric(name="output_throughput", title="Output throughput", unit="tok/s", better="higher"),
        Metric(name="request_throughput", title="Request throughput", unit="req/s", better="higher"),
        Metric(name="goodput", title="Goodput", unit="req/s", better="higher"),
        Metric(name="itl_p99", title="Inter-token latency (ITL), P99", unit="ms", better="lower"),
        Metric(name="acceptance_length", title="Acceptance length", unit="tokens", better="higher"),
        Metric(name="speedup", title="Speedup", unit="x", better="higher"),
        Metric(name="throughput_gain", title="Output throughput against one stream", unit="x", better="higher"),
        Metric(name="cached_tokens", title="Cached prompt tokens", unit="tokens", better="higher"),
        Metric(name="cache_hit_rate", title="Prefix cache hit rate", unit="ratio", better="higher"),
        Metric(name="cache_prediction_error", title="Cached tokens, off the prediction", unit="pages", better="lower"),
        Metric(name="prediction_error", title="Prediction, off the measured figure", unit="ratio", better="lower"),
        Metric(name="valid_rate", title="Output that is valid under the constraint", unit="ratio", better="higher"),
        Metric(name="engine_steps", title="Engine steps", unit="steps", better="lower"),
        Metric(name="preemptions", title="Preemptions", unit="requests", better="lower"),
        Metric(name="kv_bytes_per_token", title="KV cache per token", unit="bytes", better="lower"),
        Metric(name="kv_capacity", title="KV cache capacity", unit="tokens", better="higher"),
        Metric(name="running_requests", title="Requests running together, at most", unit="requests", better="higher"),
        Metric(name="kv_cache_usage", title="KV cache in use, at most", unit="ratio", better="neither"),
        Metric(name="loss", title="Loss on held-out text", unit="nats/token", better="lower"),
        Metric(name="token_agreement", title="Tokens chosen as by the baseline", unit="ratio", better="higher"),
        Metric(name="prompt_tokens", title="Prompt tokens", unit="tokens", better="neither"),
        Metric(name="completion_tokens", title="Completion tokens", unit="tokens", better="neither"),
        Metric(name="bandwidth", title="Memory bandwidth", unit="GB/s", better="higher"),
        Metric(name="roofline", title="Decode roofline", unit="tok/s", better="neither"),
    )
}


class Spread(BaseModel):
    """How far the samples lie around `Measurement.value`, in its unit."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    kind: Literal["iqr", "bootstrap95", "minmax"]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"spread is upside down: low {self.low} > high {self.high}")
        return self


class Load(BaseModel):
    """The work that was offered while a figure was taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: str = Field("", description="name of the prompt set, e.g. 'chat' or 'prefill-512'")
    arrival: Literal["closed", "open", "waves", "none"] = "closed"
    concurrency: int | None = Field(None, description="streams in flight, closed loop")
    request_rate: float | None = Field(None, description="requests per second, open loop")
    burstiness: float | None = Field(None, description="gamma shape of the arrivals; 1 is Poisson")
    prompt_tokens: float | None = Field(None, description="mean prompt tokens per request")
    output_tokens: float | None = Field(None, description="mean completion tokens per request")
    requests: int | None = None

    def label(self) -> str:
        """A short text for tables and legends."""
        parts = [self.workload] if self.workload else []
        if self.concurrency is not None:
            parts.append(f"c={self.concurrency}" + (" in waves" if self.arrival == "waves" else ""))
        if self.request_rate is not None:
            parts.append(f"{self.request_rate:g} req/s")
        if self.prompt_tokens is not None:
            parts.append(f"{self.prompt_tokens:.0f} in")
        if self.output_tokens is not None:
            parts.append(f"{self.output_tokens:.0f} out")
        return ", ".join(parts)


class Measurement(BaseModel):
    """One number and where it came from.

    Raises:
        pydantic.ValidationError: the metric is unknown, the value is not finite, the unit is not the metric's,
            a measured figure has no samples or no engine version, or a reference has no citation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    value: float
    unit: str = ""
    spread: Spread | None = None
    n: int = Field(0, ge=0, description="samples behind the value")
    engine: str
    engine_version: str = ""
    model: str = ""
    precision: str = ""
    machine: str = ""
    load: Load = Load()
    source: Literal["measured", "reference"] = "measured"
    cited_from: str | None = None
    witness: float | None = Field(None, description="the engine's own figure for the same quantity")
    flags: tuple[str, ...] = Field((), description="warnings, e.g. 'client-bound' or 'above-roofline'")
    method: str = Field("", description="how tokens were drafted, e.g. 'medusa'; '' without speculation")

    @model_validator(mode="before")
    @classmethod
    def _fill_unit(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("unit") and data.get("metric") in METRICS:
            return {**data, "unit": METRICS[data["metric"]].unit}
        return data

    @model_validator(mode="after")
    def _provenance(self) -> Self:
        metric = METRICS.get(self.metric)
        if metric is None:
            raise ValueError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if self.unit != metric.unit:
            raise ValueError(f"{self.metric} is in {metric.unit}, not {self.unit}")
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} of {self.engine} is {self.value}, not a number that was measured")
        if self.source == "measured":
            missing = [f for f in ("engine_version", "machine") if not getattr(self, f)]
            if missing or self.n < 1:
                raise ValueError(f"a measured {self.metric} needs {', '.join(missing) or 'n >= 1'}")
            if self.cited_from:
                raise ValueError("a measured figure is not cited from elsewhere; use source='reference'")
        elif not self.cited_from:
            raise ValueError(f"a reference {self.metric} needs cited_from")
        return self

    @property
    def witness_error(self) -> float | None:
        """Relative difference between our figure and the engine's own, or None without a witness."""
        if self.witness is None or self.witness == 0:
            return None
        return abs(self.value - self.witness) / abs(self.witness)


class EngineStatus(BaseModel):
    """One row of the engine table: never dropped silently, whatever became of it."""

    model_config = ConfigDict(frozen=True)

    engine: str
    status: Literal["measured", "available", "unavailable", "failed"]
    version: str = ""
    reason: str = ""
    remedy: str = ""


class CheckOutcome(BaseModel):
    """What the visible cases said about one exercise. A hint for the student; grading never trusts it."""

    model_config = ConfigDict(frozen=True)

    exercise: str
    status: Literal["passed", "failed", "open"]
    message: str = ""


class Requirement(BaseModel):
    """Something the lab must have measured, and whether it did."""

    model_config = ConfigDict(frozen=True)

    name: str
    met: bool
    detail: str = ""


class LabResult(BaseModel):
    """Everything one run of one lab leaves behind."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    lab: str
    title: str = ""
    profile: str = ""
    scale: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    engines: list[EngineStatus] = Field(default_factory=list)
    measurements: list[Measurement] = Field(default_factory=list)
    checks: list[CheckOutcome] = Field(default_factory=list)
    requirements: list[Requirement] = Field(default_factory=list)

    @property
    def measured_everything(self) -> bool:
        """True when the lab finished and met every requirement."""
        return self.finished_at is not None and bool(self.requirements) and all(r.met for r in self.requirements)

    def select(self, metric: str | None = None, **fields: Any) -> list[Measurement]:
        """Measurements whose metric and fields (e.g. engine='vllm', source='measured') are as given."""
        return select(self.measurements, metric, **fields)

    def write(self, path: Path) -> Path:
        """Write as JSON, whole or not at all.

        Raises:
            LabsError: the disk is full or the folder may not be written; the old file is untouched.
        """
        write_atomically(path, self.model_dump_json(indent=1))
        return path

    @classmethod
    def read(cls, path: Path) -> LabResult:
        """Read what `write` wrote.

        Raises:
            LabsError: no such file, or it is not a result of this schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise LabsError(f"no result file {path}", "run the lab first: ./labs run") from None
        except (ValidationError, UnicodeDecodeError, OSError) as error:
            raise LabsError(
                f"{path} is not a lab result: {str(error).splitlines()[0]}", "delete it and run the lab again"
            ) from None

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows for CSV: one per measurement, the load and spread in columns of their own."""
        return [flat_row(self.lab, m) for m in self.measurements]


def select(measurements: Iterable[Measurement], metric: str | None = None, **fields: Any) -> list[Measurement]:
    """Keep the measurements with this metric and these field values."""
    return [
        m
        for m in measurements
        if (metric is None or m.metric == metric) and all(getattr(m, k) == v for k, v in fields.items())
    ]


def flat_row(lab: str, m: Measurement) -> dict[str, Any]:
    """One measurement as a flat dictionary with stable column names."""
    row: dict[str, Any] = {"lab": lab, **m.model_dump(exclude={"load", "spread", "flags", "method"})}
    row["spread_low"], row["spread_high"] = (m.spread.low, m.spread.high) if m.spread else (None, None)
    row["spread_kind"] = m.spread.kind if m.spread else None
    row.update({f"load_{k}": v for k, v in m.load.model_dump().items()})
    row["flags"], row["method"] = ";".join(m.flags), m.method
    return row


def write_atomically(path: Path, text: str | bytes) -> None:
    """Replace `path` by `text` in one step, so that a reader or a full disk never sees half a file.

    Raises:
        LabsError: it could not be written (disk full, no permission); what stood there before still stands.
    """
    data = text.encode() if isinstance(text, str) else text
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise LabsError(
            f"cannot write {path}: {error.strerror}", "free some disk space or choose another folder with --out"
        ) from error
