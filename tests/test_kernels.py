"""A kernel's sockets lie in a private folder, wherever the kernel runs, and go with it."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from labs_helpers.errors import LabsError
from labs_helpers.kernels import private_sockets


def test_a_kernel_in_another_folder_is_found_and_leaves_no_socket(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.getcwd())")])
    with private_sockets() as config:
        folder = Path(config.KernelManager.ip).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        NotebookClient(
            notebook,
            kernel_name="python3",
            startup_timeout=30,
            resources={"metadata": {"path": str(tmp_path)}},
            config=config,
        ).execute()
        assert notebook.cells[0].outputs[0]["text"].strip() == str(tmp_path)
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_long_temporary_folder_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket's path has at most 107 characters."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with private_sockets() as config:
        assert len(config.KernelManager.ip) < 80


def test_a_kernel_that_does_not_start_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from labs_helpers import course, syllabus

    class Dead:
        def __init__(self, *_: object, **__: object) -> None: ...

        def execute(self) -> None:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("nbclient.NotebookClient", Dead)
    with pytest.raises(LabsError, match="died before replying"):
        course.execute(syllabus.find("3.3.1"))
