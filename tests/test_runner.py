"""papermill runs a lab; what it is believed for is its exception and the result file, never a cell's status."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest

from labs_helpers import runner, syllabus
from labs_helpers.errors import LabsError


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A notebook of these code cells, run as lab 3.3.1."""
    monkeypatch.setattr(syllabus, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)

    def run(*cells, **parameters):
        entry = syllabus.find("3.3.1")
        parameter_cell = nbformat.v4.new_code_cell(
            'profile = "auto"\nscale = "full"\nout = "results"', metadata={"tags": ["parameters"]}
        )
        notebook = nbformat.v4.new_notebook(cells=[parameter_cell, *map(nbformat.v4.new_code_cell, cells)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, entry.solution)
        return runner.run(entry, out=tmp_path / "out", parameters=parameters)

    return run


LAB = 'from labs_helpers.lab import Lab\nlab = Lab("3.3.1", profile=profile, scale=scale, out=out)'


def test_a_notebook_without_finish_has_not_run(made):
    ran = made("1 + 1")
    assert not ran.ok and "without lab.finish()" in ran.error


def test_a_notebook_whose_engine_never_answered_fails(made):
    ran = made(LAB, "lab.finish()")
    assert not ran.ok and "did not measure" in ran.error
    assert ran.result is not None and not ran.result.measured_everything


def test_an_error_in_a_cell_is_the_labs_error(made):
    ran = made("raise KeyError('gone')")
    assert not ran.ok and "KeyError" in ran.error and "gone" in ran.error


def test_a_dead_kernel_is_a_reason_not_a_success(made):
    ran = made("import os\nos._exit(0)", "print('never')")
    assert not ran.ok and "died" in ran.error


def test_a_result_of_an_earlier_run_does_not_count(made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lab-3.3.1.json").write_text("{}")
    assert made("1 + 1").result is None


def test_injected_parameters_arrive(made):
    ran = made("print(scale, out)", LAB, "lab.finish()", scale="quick")
    assert ran.result is not None and ran.result.scale == "quick"


@pytest.mark.parametrize("parameters", [{"sclae": "quick"}, {"scale": "huge"}, {"scale": 1}])
def test_a_bad_parameter_stops_before_the_notebook_runs(made, parameters, tmp_path):
    with pytest.raises(LabsError):
        made("1 / 0", **parameters)
    assert not (tmp_path / "out" / syllabus.find("3.3.1").solution.name).exists()


def test_a_notebook_that_injects_an_unknown_name_by_itself_fails(made):
    """papermill used directly, past our own validation."""
    ran = made("# Parameters\nsclae = 'quick'", LAB)
    assert not ran.ok and "sclae" in ran.error


def test_a_folder_that_cannot_be_written_is_found_before_measuring():
    from pathlib import Path

    with pytest.raises(LabsError, match="cannot write"):
        runner.require_writable(Path("/proc/nowhere"))


def test_jupyterlab_finds_the_courses_interpreter_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    environment = runner.jupyter_environment()
    ours, theirs = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert theirs == "/theirs" and environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    page = json.loads((Path(ours) / "labconfig" / "page_config.json").read_text())
    assert page["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True
