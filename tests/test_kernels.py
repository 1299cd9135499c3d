"""A kernel's sockets lie in a private folder, wherever the kernel runs, and go with it."""

from __future__ import annotations

import stat
from pathlib import Path

import nbformat
from nbclient import NotebookClient

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
