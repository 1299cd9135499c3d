"""The report is one file that loads nothing, shows everything with its provenance, and runs nobody's markup."""

from __future__ import annotations

import base64
import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labs_helpers import references, report
from labs_helpers.errors import LabsError
from labs_helpers.results import EngineStatus, LabResult, Load, Requirement
from tests.synthetic import MACHINE, lab_measurements, lab_result, measurement, reference

HOSTILE = "<script>alert('x')</script>\"'&"


class Page(HTMLParser):
    """What a browser would see: its elements with attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Any:
    def write(*results: LabResult, **notebooks: Path) -> Page:
        given = {key.replace("_", "."): path for key, path in notebooks.items()}
        return Page(report.write_report(results, tmp_path / "report.html", given))

    return write


def test_nothing_is_loaded_from_anywhere(page: Any) -> None:
    found = page(lab_result())
    assert {tag for tag, _ in found.elements}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "form", "base"}
    )
    assert all((image["src"] or "").startswith("data:image/") for image in found.all("img"))
    assert not re.search(r"url\(|@import|https?://", found.source)
    (policy,) = [meta for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy["content"] or "")


def test_pictures_are_inside_and_have_a_text(page: Any) -> None:
    images = page(lab_result()).all("img")
    assert len(images) >= 5 and all(image["alt"] for image in images)
    for image in images:
        picture = base64.b64decode((image["src"] or "").partition("base64,")[2])
        assert b"<svg" in picture and b"<script" not in picture


def test_hostile_names_are_shown_and_not_run(page: Any) -> None:
    result = lab_result(
        title=HOSTILE,
        machine={"label": HOSTILE},
        engines=[EngineStatus(engine=HOSTILE, status="failed", reason=HOSTILE, remedy=HOSTILE)],
        measurements=[measurement(engine=HOSTILE, model=HOSTILE, flags=(HOSTILE,), load=Load(workload=HOSTILE)),
                      reference(engine=HOSTILE, cited_from=HOSTILE)],
        requirements=[Requirement(name=HOSTILE, met=False, detail=HOSTILE)],
    )  # fmt: skip
    found = page(result)
    assert found.all("script") == []
    assert found.text.count(HOSTILE) >= 10


def test_every_engine_is_named_with_reason_and_remedy(page: Any) -> None:
    text = page(lab_result()).text
    for wanted in ("llama.cpp", "transformers", "vllm", "needs a CPU kernel package", "./labs engines install sglang",
                   "needs an NVIDIA GPU", "use a machine with one"):  # fmt: skip
        assert wanted in text


def test_every_measurement_is_there_with_n_spread_unit_and_witness(page: Any) -> None:
    one = measurement(value=412.5, n=24, witness=417.0, spread={"low": 401.0, "high": 420.5, "kind": "iqr"},
                      load=Load(workload="chat", concurrency=1))  # fmt: skip
    text = page(lab_result(measurements=[one])).text
    for wanted in ("412.5", "tok/s", "24", "401 to 420.5", "iqr", "417", "1.1%", "chat, c=1", "0.32.0", "fp32"):
        assert wanted in text


def test_references_stand_apart_under_their_own_heading(page: Any) -> None:
    found = page(lab_result(measurements=[measurement(), *references.spark()]))
    measured, _, published = found.text.partition("Other machines, other models")
    assert "Qwen2.5-Coder-7B" in published and references.LMSYS in published
    assert "Qwen2.5-Coder-7B" not in measured


def test_a_figure_above_its_roof_is_flagged(page: Any) -> None:
    rows = [measurement(value=900, load=Load(concurrency=1)), measurement("roofline", 640, engine="memory")]
    assert "above-roofline" in page(lab_result(measurements=rows)).text
    assert "above-roofline" not in page(lab_result(measurements=lab_measurements())).text


def test_a_roof_measured_on_a_busy_machine_refutes_nothing(page: Any) -> None:
    busy = measurement("roofline", 640, engine="memory", flags=("machine-busy",))
    text = page(lab_result(measurements=[measurement(value=900, load=Load(concurrency=1)), busy])).text
    assert "above-roofline" not in text and "machine-busy" in text


def test_several_streams_may_exceed_the_roof_of_one(page: Any) -> None:
    rows = [measurement(value=900, load=Load(concurrency=16)), measurement("roofline", 640, engine="memory")]
    assert "above-roofline" not in page(lab_result(measurements=rows)).text


def test_an_unmet_requirement_and_an_unfinished_lab_are_said_so(page: Any) -> None:
    unmet = lab_result(requirements=[Requirement(name="three engines", met=False, detail="1 of 3")], measurements=[])
    text = page(unmet, lab_result(lab="3.3.2", finished_at=None, requirements=[], measurements=[], engines=[])).text
    assert text.count("did not measure what it must") == 2
    assert "1 of 3" in text and "did not reach its end" in text
    assert text.count("Nothing was measured") == 2 and "no engine was looked at" in text


def test_checks_are_shown_with_their_message(page: Any) -> None:
    text = page(lab_result(measurements=[])).text
    assert "percentile: passed" in text and "tpot: open" in text and "still to be written" in text


def test_notebooks_are_linked_relative_to_the_page(page: Any, tmp_path: Path) -> None:
    (tmp_path / "my lab.ipynb").write_text("{}")
    links = [a["href"] for a in page(lab_result(measurements=[]), **{"3_3_1": tmp_path / "my lab.ipynb"}).all("a")]
    assert "my%20lab.ipynb" in links
    elsewhere = [a["href"] for a in page(lab_result(measurements=[]), **{"3_3_1": Path("/etc/passwd")}).all("a")]
    assert all((link or "").startswith("#") for link in elsewhere)


def test_the_machine_card_of_this_machine_is_shown(page: Any) -> None:
    from labs_helpers import machine

    here = machine.detect()
    text = page(lab_result(machine=here.card(), measurements=[])).text
    assert here.label in text and here.python in text and here.why in text


def test_an_unknown_machine_card_does_not_break_the_page(page: Any) -> None:
    assert MACHINE in page(lab_result(machine={"label": MACHINE, "gpu": None, "docker": None}, measurements=[])).text
    assert page(lab_result(machine={}, measurements=[]))


def test_no_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabsError, match="nothing to report"):
        report.write_report([], tmp_path / "report.html")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabsError, match="cannot write"):
        report.write_report([lab_result(measurements=[])], tmp_path / "file" / "report.html")


def test_the_columns_of_the_csv_are_stable(tmp_path: Path) -> None:
    """Spreadsheets and scripts depend on them: adding at the end is fine, anything else is a break."""
    assert report.COLUMNS == (
        "lab", "metric", "value", "unit", "n", "engine", "engine_version", "model", "precision", "machine", "source",
        "cited_from", "witness", "spread_low", "spread_high", "spread_kind", "load_workload", "load_arrival",
        "load_concurrency", "load_request_rate", "load_burstiness", "load_prompt_tokens", "load_output_tokens",
        "load_requests", "flags", "method",
    )  # fmt: skip
    empty = report.write_csv([], tmp_path / "empty.csv").read_text()
    assert empty == ",".join(report.COLUMNS) + "\n"


def test_the_csv_holds_every_figure_of_every_lab(tmp_path: Path) -> None:
    labs = [lab_result(), lab_result(lab="3.3.2")]
    with report.write_csv(labs, tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(lab.measurements) for lab in labs)
    first, written = labs[0].measurements[0], rows[0]
    assert float(written["value"]) == first.value and written["engine"] == first.engine and written["lab"] == "3.3.1"
    assert {row["source"] for row in rows} == {"measured", "reference"}


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path: Path) -> None:
    rows = [measurement(engine='=cmd|"/c calc"!A1', value=-5)]
    with report.write_csv([lab_result(measurements=rows)], tmp_path / "m.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["engine"].startswith("'=") and float(row["value"]) == -5
