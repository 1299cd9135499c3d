"""Environments are whole or not there: nothing half-installed counts as installed."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from labs_helpers import venvs
from labs_helpers.errors import LabsError


@pytest.fixture
def package(tmp_path):
    """A package that installs without a network."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "tiny-1.0.dist-info").mkdir()
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    import zipfile

    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "x = 1\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")
    return wheel


def build(path, *args, expected="k", said=None):
    venvs.build(
        path,
        [venvs.Step("tiny", args)],
        expected=expected,
        title="test",
        log=path.parent / "log",
        report=said.append if said is not None else lambda line: None,
    )


def test_a_whole_environment_is_ready_and_not_built_again(tmp_path, package):
    env, said = tmp_path / "env", []
    build(env, "--no-index", str(package), said=said)
    assert venvs.ready(env, "k") and not venvs.ready(env, "other")
    assert subprocess.run([venvs.python(env), "-c", "import tiny"], check=False).returncode == 0
    assert any("done in" in line for line in said)
    before = (env / venvs.STAMP).stat().st_mtime_ns
    build(env, "--no-index", "/nowhere")  # would fail if it ran
    assert (env / venvs.STAMP).stat().st_mtime_ns == before


def test_a_failed_step_shows_the_log_and_counts_as_nothing(tmp_path):
    env = tmp_path / "env"
    with pytest.raises(LabsError, match=r"(?s)tiny failed.*No matching distribution"):
        build(env, "--no-index", "there-is-no-such-package")
    assert not venvs.ready(env, "k")


def test_a_changed_key_builds_again_in_place(tmp_path, package):
    env = tmp_path / "env"
    build(env, "--no-index", str(package))
    with pytest.raises(LabsError):
        build(env, "--no-index", "there-is-no-such-package", expected="k2")
    assert not venvs.ready(env, "k") and not venvs.ready(env, "k2")


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "cannot install")]
)
def test_a_disk_that_refuses_is_named(tmp_path, monkeypatch, number, said):
    def refuse(*args):
        raise OSError(number, "refused", "/some/file")

    monkeypatch.setattr(venvs, "_make_venv", refuse)
    with pytest.raises(LabsError, match=said):
        build(tmp_path / "env", "x")


def test_ctrl_c_stops_pip_and_leaves_nothing_that_counts(tmp_path):
    """The interrupt arrives while pip waits for a server that never answers."""
    script = textwrap.dedent(f"""
        import socket
        from pathlib import Path
        from labs_helpers import venvs
        deaf = socket.create_server(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d/simple" % deaf.getsockname()[1]
        venvs.build(Path({str(tmp_path / "env")!r}), [venvs.Step("x", ("--index-url", url, "nothing"))],
                    expected="k", title="t", log=Path({str(tmp_path / "log")!r}), report=print)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while "Looking in indexes" not in _text(tmp_path / "log") and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    assert not venvs.ready(tmp_path / "env", "k")
    assert not _pip_processes(tmp_path)


def _text(path):
    return path.read_text() if path.exists() else ""


def _pip_processes(folder):
    import psutil

    return [p for p in psutil.process_iter(["cmdline"]) if any(str(folder) in a for a in p.info["cmdline"] or ())]


@pytest.mark.parametrize(("names", "expected"), [(["torch"], ()), (["torch", "nvidia-cublas"], ("--index-url",))])
def test_cuda_packages_send_torch_to_the_cpu_index(tmp_path, monkeypatch, names, expected):
    import json

    def plan(path, args, log):
        report = Path(args[args.index("--report") + 1])
        report.write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in names]}))
        return 0

    monkeypatch.setattr(venvs, "_pip", plan)
    monkeypatch.setattr(venvs, "has_nvidia_gpu", lambda: False)
    assert venvs._torch_index(tmp_path, tmp_path / "log")[:1] == expected


def test_the_kernel_has_the_cpu_build_of_torch_where_there_is_no_gpu():
    import torch

    assert torch.__version__.split("+")[0] == venvs.TORCH_VERSION
    assert venvs.has_nvidia_gpu() or torch.version.cuda is None
