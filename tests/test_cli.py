"""The command line: quick to answer, clear when wrong, exit 2 for bad input and 130 for Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from labs_helpers.paths import ROOT


def labs(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "labs_helpers.cli", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "test",
        "lab",
        "doctor",
        "progress",
        "build",
        "clean",
        "engines",
        "engines install",
        "engines start",
        "engines stop",
        "engines logs",
        "model",
        "model train",
        "model evaluate",
    ],
)
def test_every_command_has_help(command):
    done = labs(*command.split(), "--help")
    assert done.returncode == 0 and "Usage: labs " + command in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "3.3.9"], "there is no lab '3.3.9'"),
        (["run", "3.3.1", "-p", "sclae=quick"], "unknown parameter 'sclae'"),
        (["run", "3.3.1", "-p", "sclae"], "is not NAME=VALUE"),
        (["run", "3.3.1", "--scale", "huge"], "quick, full"),
        (["run", "3.3.1", "--profile", "tpu"], "auto, cpu, spark, cuda"),
        (["run", "3.3.1", "--out", "/proc/nowhere"], "cannot write"),
        (["engines", "install", "vlm"], "vllm"),
        (["engines", "start", "vlm"], "vllm"),
        (["engines", "logs", "vlm"], "vllm"),
        (["test", "--only", "everything"], "stages: lint"),
        (["lab", "3.3.9"], "there is no lab '3.3.9'"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(args, said):
    done = labs(*args)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_progress_counts_only_results_that_measured_everything(tmp_path):
    (tmp_path / "lab-3.3.1.json").write_text("{}")
    rows = json.loads(labs("progress", "--out", str(tmp_path), "--json").stdout)
    assert [row["lab"] for row in rows] == [f"3.3.{i}" for i in range(1, 8)]
    assert rows[0]["state"] == "open" and "unreadable" in rows[0]["exercises"]


def test_ctrl_c_is_130_and_no_traceback():
    child = subprocess.Popen(
        [sys.executable, "-m", "labs_helpers.cli", "test", "--only", "types"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert "types" in child.stdout.readline()
    time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "labs: interrupted" in error and "labs_helpers/cli.py" not in error  # mypy prints a traceback of its own


def test_help_and_import_bring_nothing_heavy():
    heavy = ("torch", "transformers", "matplotlib", "pandas", "numpy", "aiohttp", "papermill", "pydantic")
    code = f"import sys, labs_helpers, labs_helpers.cli; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_launcher_answers_before_anything_is_installed(tmp_path):
    """A checkout without .venv: --help prints, and builds nothing."""
    for name in ("labs", "labs_helpers", "pyproject.toml", "environment"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom labs_helpers import bootstrap\n"
        f"bootstrap.VENV = Path({str(tmp_path / '.venv')!r})\nsys.exit(bootstrap.main(['--help']))\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "./labs COMMAND" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_the_launcher_and_bootstrap_need_the_standard_library_only():
    code = "import sys; sys.path.insert(0, '.'); from labs_helpers import bootstrap; print(bootstrap.FIRST_HELP[:5])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "Usage\n", done.stderr
