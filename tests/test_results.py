"""A number without provenance is refused, and a file is written whole or not at all."""

from __future__ import annotations

import csv
import errno
import math
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from labs_helpers.errors import LabsError
from labs_helpers.results import METRICS, LabResult, Load, Measurement, Requirement, Spread, flat_row, write_atomically
from tests.synthetic import lab_result, measurement, reference


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "tokens_per_parsec"}, "unknown metric"),
        ({"unit": "ms"}, "is in tok/s, not ms"),
        ({"value": math.nan}, "not a number that was measured"),
        ({"value": math.inf}, "not a number that was measured"),
        ({"n": 0}, "n >= 1"),
        ({"n": -1}, "greater than or equal to 0"),
        ({"engine_version": ""}, "engine_version"),
        ({"machine": ""}, "machine"),
        ({"cited_from": "a blog"}, "not cited from elsewhere"),
        ({"source": "reference"}, "needs cited_from"),
        ({"source": "guessed"}, "measured"),
        ({"colour": "blue"}, "Extra inputs"),
    ],
)
def test_a_figure_without_provenance_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        measurement(**fields)


def test_a_reference_needs_neither_samples_nor_version_but_a_citation() -> None:
    assert reference().n == 0
    with pytest.raises(ValidationError, match="needs cited_from"):
        reference(cited_from=None)


def test_the_unit_is_the_metrics_own() -> None:
    assert {measurement(name).unit for name in METRICS} == {metric.unit for metric in METRICS.values()}


def test_a_spread_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="upside down"):
        Spread(low=2, high=1, kind="iqr")


def test_measurements_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        measurement().value = 1.0


def test_the_difference_to_the_witness_is_relative_to_the_witness() -> None:
    assert measurement(value=102, witness=100).witness_error == pytest.approx(0.02)
    assert measurement(value=98, witness=100).witness_error == pytest.approx(0.02)
    assert measurement(witness=None).witness_error is None
    assert measurement(witness=0).witness_error is None


def test_a_lab_has_measured_everything_only_when_it_finished_and_met_all() -> None:
    assert lab_result().measured_everything
    assert not lab_result(finished_at=None).measured_everything
    assert not lab_result(requirements=[]).measured_everything
    unmet = [Requirement(name="a", met=True), Requirement(name="b", met=False)]
    assert not lab_result(requirements=unmet).measured_everything


def test_selection_keeps_source_and_metric_apart() -> None:
    result = lab_result()
    chosen = result.select("decode_throughput", source="measured", engine="vllm")
    assert chosen and all(m.engine == "vllm" and m.source == "measured" for m in chosen)
    assert len(result.select(source="reference")) == 2


@given(value=st.floats(-1e12, 1e12), n=st.integers(1, 10**6), concurrency=st.none() | st.integers(1, 512))
def test_a_measurement_survives_json(value: float, n: int, concurrency: int | None) -> None:
    one = measurement(value=value, n=n, load=Load(concurrency=concurrency), flags=("client-bound",))
    assert Measurement.model_validate_json(one.model_dump_json()) == one


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    result = lab_result()
    assert LabResult.read(result.write(tmp_path / "new" / "lab.json")) == result


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"lab": 1}', b'{"lab": "3.3.1", "surprise": 1}'])
def test_a_broken_result_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lab.json"
    path.write_bytes(content)
    with pytest.raises(LabsError, match="is not a lab result"):
        LabResult.read(path)


def test_a_missing_result_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(LabsError, match=r"\./labs run"):
        LabResult.read(tmp_path / "none.json")


def test_flat_rows_have_the_same_columns_whatever_is_known() -> None:
    bare, full = reference(), measurement(spread=Spread(low=1, high=2, kind="iqr"), witness=3, flags=("a", "b"))
    assert list(flat_row("3.3.1", bare)) == list(flat_row("3.3.1", full))
    assert flat_row("3.3.1", full)["flags"] == "a;b"
    assert flat_row("3.3.1", full)["spread_low"] == 1


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, "first, and longer")
    write_atomically(path, "second")
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_when_writing_fails_the_old_file_stands_and_no_scrap_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lab.json"
    write_atomically(path, "old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabsError, match="No space left") as raised:
        write_atomically(path, "new")
    assert "free some disk space" in raised.value.remedy
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["lab.json"]


def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path: Path) -> None:
    """On a file system of 64 KiB, where mounting one is allowed; elsewhere the file size is limited instead."""
    import resource
    import signal

    path = tmp_path / "lab.json"
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True
        ).returncode
        == 0
    )
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        write_atomically(path, "old")
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
        with pytest.raises(LabsError, match="cannot write"):
            write_atomically(path, "x" * 256 * 1024)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["lab.json"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
        if mounted:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(LabsError, match="cannot write"):
        write_atomically(in_the_way / "lab.json", "{}")


def test_without_permission_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal itself is played; the rest is the real path."""
    import tempfile

    def refuse(**_options: Any) -> tuple[int, str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(LabsError, match="Permission denied"):
        write_atomically(tmp_path / "lab.json", "{}")


def test_a_csv_of_the_rows_has_one_line_per_figure(tmp_path: Path) -> None:
    from labs_helpers.report import write_csv

    result = lab_result()
    with write_csv([result], tmp_path / "m.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result.measurements)
