"""One self-contained HTML page and one CSV file from the results of a run."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labs_helpers.errors import LabsError
from labs_helpers.results import METRICS, LabResult, Measurement, Metric, flat_row, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html.jinja")
COLUMNS = tuple(flat_row("", Measurement(metric="speedup", value=1, engine="", source="reference", cited_from="-")))
"""The columns of the CSV file: those of `results.flat_row`, in its order."""


def write_report(results: Sequence[LabResult], out: Path, notebooks: Mapping[str, Path] | None = None) -> Path:
    """Write the page to `out`, whole or not at all; it loads nothing from anywhere.

    Args:
        results: one per lab that ran.
        out: the HTML file.
        notebooks: executed notebook by lab id, linked by a path relative to `out`.

    Raises:
        LabsError: there are no results, or `out` cannot be written.
    """
    if not results:
        raise LabsError("there is nothing to report: no lab left a result", "run one first: ./labs run 3.3.1")
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = _number
    labs = [_Section(result, out, (notebooks or {}).get(result.lab)) for result in results]
    page = environment.from_string(TEMPLATE.read_text()).render(
        title="Module 3.3: what was measured", labs=labs, written=_time(datetime.now(UTC))
    )
    write_atomically(out, page)
    return out


def write_csv(results: Sequence[LabResult], path: Path) -> Path:
    """Write every figure as one row with the columns `COLUMNS`; the header stands even when there are none.

    Raises:
        LabsError: `path` cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in result.to_rows())
    write_atomically(path, text.getvalue())
    return path


@dataclass(frozen=True)
class _Picture:
    alt: str
    data: str
    """SVG in base64: inside an image it can neither run a script nor clash with another's ids."""


@dataclass(frozen=True)
class _Table:
    metric: Metric
    rows: list[Measurement]


@dataclass(frozen=True)
class _Section:
    """What the template shows of one lab."""

    result: LabResult
    out: Path
    notebook_path: Path | None

    @property
    def anchor(self) -> str:
        return f"lab-{quote(self.result.lab, safe='')}"

    @property
    def complete(self) -> bool:
        return self.result.measured_everything

    @cached_property
    def _measured(self) -> list[Measurement]:
        roofs = {
            (m.model, m.precision): m.value
            for m in self.result.measurements
            if m.metric == "roofline" and "machine-busy" not in m.flags
        }
        return [_flag_above_roof(m, roofs) for m in self.result.measurements if m.source == "measured"]

    @property
    def references(self) -> list[Measurement]:
        return [m for m in self.result.measurements if m.source == "reference"]

    @property
    def measured(self) -> int:
        return len(self._measured)

    @property
    def engines_measured(self) -> int:
        return sum(e.status == "measured" for e in self.result.engines)

    @property
    def started(self) -> str:
        return _time(self.result.started_at)

    @property
    def seconds(self) -> str:
        finished = self.result.finished_at
        return f"{(finished - self.result.started_at).total_seconds():.0f}" if finished else ""

    @property
    def notebook(self) -> str:
        """A link relative to the page; '' when the notebook is missing or lies elsewhere."""
        if self.notebook_path is None or not self.notebook_path.exists():
            return ""
        folder = self.out.absolute().parent
        path = self.notebook_path.absolute()
        return quote(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else ""

    @property
    def machine(self) -> list[tuple[str, str]]:
        return _machine_facts(self.result.machine)

    @property
    def tables(self) -> list[_Table]:
        """One table per metric, in the order of `METRICS`."""
        found = {name: [m for m in self._measured if m.metric == name] for name in METRICS}
        return [_Table(METRICS[name], rows) for name, rows in found.items() if rows]

    @property
    def flagged(self) -> list[tuple[str, str]]:
        """Each flag with the engines whose figures carry it, and how many do."""
        found: dict[str, dict[str, int]] = {}
        for m in self._measured:
            for flag in m.flags:
                what = f"{m.engine} {m.precision}".strip()
                found.setdefault(flag, {}).setdefault(what, 0)
                found[flag][what] += 1
        return [
            (flag, ", ".join(f"{what} ({n} figure{'s' * (n > 1)})" for what, n in counts.items()))
            for flag, counts in found.items()
        ]

    @cached_property
    def figures(self) -> list[_Picture]:
        return list(_pictures([*self._measured, *self.references]))


def _flag_above_roof(m: Measurement, roofs: Mapping[tuple[str, str], float]) -> Measurement:
    roof = roofs.get((m.model, m.precision))
    plain_decode = m.metric == "decode_throughput" and m.load.concurrency in (None, 1)
    if not plain_decode or roof is None or m.value <= roof or "above-roofline" in m.flags:
        return m
    return m.model_copy(update={"flags": (*m.flags, "above-roofline")})


def _pictures(rows: Sequence[Measurement]) -> Iterator[_Picture]:
    """Every figure that these measurements can fill."""
    from labs_helpers import plots

    drawings: dict[str, Callable[[], Figure]] = {
        "start-up time and memory by engine": lambda: plots.startup_and_memory(rows),
        "prefill throughput by prompt length": lambda: plots.lines(rows, "prefill_throughput", x="prompt_tokens"),
        "decode throughput against the roofline": lambda: plots.decode_vs_roofline(rows),
        "output throughput by concurrency": lambda: plots.lines(rows, "output_throughput", x="concurrency"),
        "latency against throughput": lambda: plots.latency_throughput(rows),
        "speedup": lambda: plots.bars([m for m in rows if m.source == "measured"], "speedup"),
        "acceptance length": lambda: plots.bars([m for m in rows if m.source == "measured"], "acceptance_length"),
        "figures published by others": lambda: plots.references(rows),
    }
    for alt, draw in drawings.items():
        try:
            figure = draw()
        except LabsError:  # these measurements do not fill this one
            continue
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        yield _Picture(alt, base64.b64encode(svg.getvalue()).decode())


def _machine_facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a machine card (`Machine.card`) that a reader of figures needs, the ones it has."""
    gpu, docker = card.get("gpu") or {}, card.get("docker") or {}
    facts = {
        "machine": card.get("label"),
        "kind": ": ".join(str(card[name]) for name in ("kind", "why") if card.get(name)),
        "GPU": ", driver ".join(str(gpu[name]) for name in ("name", "driver") if gpu.get(name)),
        "system": ", Python ".join(str(card[name]) for name in ("os", "python") if card.get(name)),
        "architecture": card.get("arch"),
        "Docker": docker.get("status"),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _number(value: float) -> str:
    """Four significant digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
