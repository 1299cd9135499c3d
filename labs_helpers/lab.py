"""`Lab`: what a notebook holds. Parameters in, engines and measurements through it, one result file out."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from labs_helpers import exercises, profiles, syllabus
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT
from labs_helpers.results import EngineStatus, LabResult, Measurement

if TYPE_CHECKING:
    from labs_helpers.bench import Run
    from labs_helpers.engines.base import ModelSpec, Server

T = TypeVar("T")


class NotMeasured(LabsError):
    """The lab ran to its end without measuring what it must. The result file says so too."""


class Lab:
    """One run of one lab.

    Args:
        lab_id: '3.3.1' to '3.3.7'.
        profile: 'auto', 'cpu', 'spark' or 'cuda'.
        scale: 'quick' or 'full'; changes request counts and repeats, never what is measured.
        out: folder of the result file; relative to the checkout.

    The environment variables LABS_PROFILE, LABS_SCALE and LABS_OUT override these where no parameter can be passed,
    as under nbval.

    Raises:
        LabsError: an unknown lab, profile or scale, or a parameter that papermill injected and no lab has.
    """

    def __init__(self, lab_id: str, *, profile: str = "auto", scale: str = "full", out: str = "results") -> None:
        from labs_helpers import machine

        refuse_unknown_parameters(_injected_parameters())
        given = _with_environment({"profile": profile, "scale": scale, "out": out})
        validate_parameters(given)
        profile, scale, out = given["profile"], given["scale"], given["out"]
        entry = syllabus.find(lab_id)
        self.spec = entry.spec()
        self.machine = machine.detect()
        self.choice = profiles.choose(profile, self.machine)
        self.out = ROOT / out
        self.scale = scale
        self.result = LabResult(
            lab=entry.id,
            title=self.spec.title,
            profile=self.choice.profile.name,
            scale=scale,
            machine=self.machine.card(),
        )
        self.result_path.unlink(missing_ok=True)  # a stale result must never pass for this run's
        self._statuses = {status.engine: status for status in self._survey()}
        print(self._card())

    @property
    def result_path(self) -> Path:
        return self.out / f"lab-{self.result.lab}.json"

    @property
    def precision(self) -> str:
        """The precision all engines of a comparison are held to."""
        return self.choice.profile.precision

    def pick(self, quick: T, full: T) -> T:
        """The value for this run's scale."""
        return quick if self.scale == "quick" else full

    # -- engines -------------------------------------------------------------------------------------------------

    def engines(self) -> list[str]:
        """Names of this lab's engines that can run here."""
        return [name for name, s in self._statuses.items() if s.status != "unavailable"]

    @contextmanager
    def engine(self, name: str, *, precision: str | None = None, **options: Any) -> Iterator[Server]:
        """Start an engine on the lab's model, yield it once it answers, stop it whatever happens.

        Start-up time and memory are recorded when the block ends. Options are the engine's own
        (`labs_helpers.engines.NAME`).

        Raises:
            LabsError: no such engine or option, it cannot run here, or it died: with its last log lines.
        """
        from labs_helpers.engines import process, registry

        engine = registry.get(name)
        precision = precision or self.precision
        self._measure_roof(engine.model(precision))  # before the engine takes the memory's time
        try:
            with process.serve(engine, precision=precision, options=options, log_dir=self.out / "logs") as server:
                yield server
                self._record_server(server)
        except LabsError as error:
            self._statuses[name] = EngineStatus(engine=name, status="failed", reason=error.what, remedy=error.remedy)
            raise

    def _record_server(self, server: Server) -> None:
        common: dict[str, Any] = {
            "engine": server.engine.name,
            "engine_version": server.version,
            "model": server.model.name,
            "precision": server.precision,
            "machine": self.machine.label,
            "n": 1,
        }
        self.record(
            Measurement(metric="startup_time", value=server.startup_s, **common),
            Measurement(metric="memory", value=server.memory_bytes() / 2**20, **common),
        )

    def _measure_roof(self, model: ModelSpec) -> None:
        """Record the decode roofline of these weights on this machine, once per precision."""
        from labs_helpers import machine

        if not self.measurements("roofline", precision=model.precision):
            self.record(machine.roofline_measurement(self.machine, model, device=self._device))

    @property
    def _device(self) -> Literal["cpu", "gpu"]:
        return "cpu" if self.choice.profile.name == "cpu" else "gpu"

    def _against_roof(self, row: Measurement) -> Measurement:
        """The row, flagged when it claims more than the memory bandwidth allows one stream."""
        roofs = self.measurements("roofline", precision=row.precision, model=row.model)
        roofs = [roof for roof in roofs if "machine-busy" not in roof.flags]  # a lower bound is no roof
        if row.metric == "decode_throughput" and roofs and row.value > roofs[0].value:
            return row.model_copy(update={"flags": (*row.flags, "above-roofline")})
        return row

    def _survey(self) -> Iterator[EngineStatus]:
        from labs_helpers.engines import registry

        for name in self.spec.engines:
            found = registry.get(name).availability(self.machine)
            yield EngineStatus(
                engine=name,
                status="available" if found.ok else "unavailable",
                version=registry.get(name).version() if found.ok else "",
                reason=found.reason,
                remedy=found.remedy,
            )

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, *found: Measurement | Run | Iterable[Measurement]) -> None:
        """Add measurements to the result: single ones, or all of a benchmark run's."""
        for item in found:
            if isinstance(item, Measurement):
                rows = [item]
            elif hasattr(item, "measurements"):
                rows = item.measurements()
            else:
                rows = list(item)
            self.result.measurements.extend(self._against_roof(row) for row in rows)
            for row in rows:
                if row.source == "measured" and row.engine in self._statuses:
                    self._statuses[row.engine] = EngineStatus(
                        engine=row.engine, status="measured", version=row.engine_version
                    )

    def measurements(self, metric: str | None = None, **fields: Any) -> list[Measurement]:
        """What was recorded so far, filtered like `LabResult.select`."""
        return self.result.select(metric, **fields)

    # -- exercises -----------------------------------------------------------------------------------------------

    def check(self, exercise: str, target: Any) -> None:
        """Run the visible cases of an exercise and say what came of them. Never raises for the student's code."""
        if exercise not in self.spec.cases:
            print(f"? there is no exercise {exercise!r} in this lab; exercises: {', '.join(self.spec.cases)}")
            return
        outcome = exercises.check(exercise, target, self.spec.cases[exercise])
        self.result.checks[:] = [c for c in self.result.checks if c.exercise != exercise] + [outcome]
        mark = {"passed": "✓", "failed": "✗", "open": "…"}[outcome.status]
        print(f"{mark} {exercise}: {outcome.status}" + (f" — {outcome.message}" if outcome.message else ""))

    def solved(self, exercise: str) -> bool:
        """Whether the last `check` of this exercise passed."""
        return any(c.exercise == exercise and c.status == "passed" for c in self.result.checks)

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write the result and say what the lab measured.

        Raises:
            NotMeasured: a required measurement is missing. The result is written all the same, and says which.
        """
        result = self.result
        result.engines = list(self._statuses.values())
        result.requirements = [requirement(result) for requirement in self.spec.requirements]
        result.finished_at = datetime.now(UTC)
        result.write(self.result_path)
        measured = [m for m in result.measurements if m.source == "measured"]
        engines = [e.engine for e in result.engines if e.status == "measured"]
        seconds = (result.finished_at - result.started_at).total_seconds()
        print(
            f"lab {result.lab}: {len(measured)} measurements of {', '.join(engines) or 'no engine'} in {seconds:.0f} s "
            f"-> {_short(self.result_path)}"
        )
        for requirement in result.requirements:
            print(f"  {'✓' if requirement.met else '✗'} {requirement.name}: {requirement.detail}")
        for check in result.checks:
            print(f"  {'✓' if check.status == 'passed' else '…'} exercise {check.exercise}: {check.status}")
        missing = [r for r in result.requirements if not r.met]
        if missing:
            what = "; ".join(f"{r.name} ({r.detail})" for r in missing)
            raise NotMeasured(
                f"lab {result.lab} did not measure what it must: {what}",
                "run the cells above that measure it; ./labs doctor says what this machine can run",
            )

    def _card(self) -> str:
        chosen = self.choice
        lines = [
            f"Lab {self.result.lab}: {self.spec.title}",
            f"  machine    {self.machine.label}",
            f"  profile    {chosen.profile.name} ({chosen.why}): {chosen.profile.models}, {chosen.profile.precision}",
            f"  scale      {self.scale}",
            f"  results    {_short(self.result_path)}",
        ]
        for status in self._statuses.values():
            detail = status.version if status.status == "available" else f"unavailable: {status.reason}"
            lines.append(f"  {status.engine:<14} {detail}")
            if status.remedy and status.status == "unavailable":
                lines.append(f"  {'':<14} -> {status.remedy}")
        return "\n".join(lines)


def validate_parameters(parameters: dict[str, Any]) -> None:
    """Hold parameters to what every lab takes.

    Raises:
        LabsError: a name no lab has, a value of the wrong type or outside the allowed ones.
    """
    refuse_unknown_parameters(parameters)
    for name, value in parameters.items():
        allowed = syllabus.PARAMETERS[name]
        if not isinstance(value, str) or not value:
            example = allowed[0] if allowed else "results"
            raise LabsError(f"parameter {name}={value!r} must be a text", f"e.g. {name}={example!r}")
        if allowed and value not in allowed:
            raise LabsError(
                f"parameter {name}={value!r} is not one of {', '.join(allowed)}", f"e.g. {name}={allowed[0]!r}"
            )


def _with_environment(parameters: dict[str, str]) -> dict[str, str]:
    return {name: os.environ.get(f"LABS_{name.upper()}") or value for name, value in parameters.items()}


def refuse_unknown_parameters(names: Iterable[str]) -> None:
    """Raise LabsError for a parameter name that no lab has."""
    unknown = [name for name in names if name not in syllabus.PARAMETERS]
    if unknown:
        raise LabsError(
            f"unknown parameter {', '.join(map(repr, unknown))}", f"the labs take {', '.join(syllabus.PARAMETERS)}"
        )


def _injected_parameters() -> list[str]:
    """Names that papermill's injected cell assigns; it begins with '# Parameters'."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return []
    shell: Any = get_ipython()
    cells: list[str] = shell.user_ns.get("In", []) if shell else []
    names = []
    for cell in cells:
        if cell.startswith("# Parameters\n"):
            names += [
                target.id
                for node in ast.parse(cell).body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            ]
    return names


def _short(path: Path) -> str:
    """A path as the reader knows it: relative to the checkout where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
