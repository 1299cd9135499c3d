"""An environment counts as installed when it is whole and made of today's pins, and never before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs_helpers import venvs
from labs_helpers.engines import install
from labs_helpers.errors import LabsError
from labs_helpers.paths import ROOT

NAME = "llama.cpp"


def wheel(folder: Path, name: str, version: str) -> Path:
    """A package of one empty module."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def make_venv_quickly(path: Path, log: Path) -> None:
    """A virtual environment with the pip of this one, because bootstrapping pip takes most of a minute."""
    import pip

    venv.create(path, with_pip=False, clear=True)
    (site,) = (path / "lib").glob("python3*/site-packages")
    (site / "pip").symlink_to(Path(pip.__file__).parent)


@pytest.fixture
def pins(tmp_path, monkeypatch) -> Iterator[Path]:
    """Pins of an engine that is one small local package."""
    monkeypatch.setattr(venvs, "_make_venv", make_venv_quickly)
    folder = tmp_path / "pins" / NAME
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text(f"xllamacpp @ {wheel(tmp_path, 'xllamacpp', '1.0').as_uri()}\n")
    monkeypatch.setattr(install, "PINS", folder.parent)
    yield folder / "requirements.txt"


def test_it_is_installed_when_it_is_whole_and_until_the_pins_change(pins):
    told = []
    assert not install.installed(NAME)
    with pytest.raises(LabsError, match=r"\./labs engines install llama\.cpp"):
        install.python(NAME)
    install.install(NAME, told.append)
    assert install.installed(NAME)
    assert install.package_version(NAME, "xllamacpp") == "1.0"
    assert any("done" in line for line in told)

    told.clear()
    install.install(NAME, told.append)
    assert told == [], "what is whole is not built again"

    (install.folder(NAME) / venvs.STAMP).unlink()  # as after an interruption
    assert not install.installed(NAME)
    install.install(NAME, told.append)
    assert install.installed(NAME)

    pins.write_text(pins.read_text() + "# another pin\n")
    assert not install.installed(NAME)

    install.uninstall(NAME)
    assert not install.folder(NAME).exists()
    install.uninstall(NAME)  # nothing to remove is no error


def test_a_package_that_does_not_exist_fails_with_pips_words_and_does_not_count(pins):
    pins.write_text("./no-such-file-1.0-py3-none-any.whl\n")
    with pytest.raises(LabsError, match="failed") as caught:
        install.install(NAME, lambda line: None)
    assert "no-such-file" in str(caught.value)
    assert "install-llama.cpp.log" in caught.value.remedy
    assert not install.installed(NAME)


def test_ctrl_c_leaves_nothing_that_counts_and_no_pip(pins, tmp_path, eventually):
    """The package's installation hangs; the interrupt must end pip as well."""
    fifo = tmp_path / "slow-1.0-py3-none-any.whl"
    os.mkfifo(fifo)
    pins.write_text(f"slow @ {fifo.as_uri()}\n")
    script = f"""
        import importlib.util
        from pathlib import Path
        from labs_helpers import venvs
        from labs_helpers.engines import install
        spec = importlib.util.spec_from_file_location("tests_of_install", {__file__!r})
        tests_of_install = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests_of_install)
        venvs._make_venv = tests_of_install.make_venv_quickly
        install.PINS = Path({str(pins.parent.parent)!r})
        install.install({NAME!r}, lambda line: None)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        eventually(lambda: pip_runs(fifo), 60)
        run.send_signal(signal.SIGINT)
        assert run.wait(20) != 0
        assert "KeyboardInterrupt" in run.stderr.read()
    eventually(lambda: not pip_runs(fifo), 10)
    assert not install.installed(NAME)


def pip_runs(fifo: Path) -> bool:
    """Whether a pip that was told of this file is running."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"pip" in words and str(fifo.parent).encode() in words:
            return True
    return False


def test_a_cache_that_cannot_be_written_is_named(pins, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabsError, match=r"cannot install into|no permission"):
        install.install(NAME, lambda line: None)


def test_a_full_disk_is_said_to_be_full(pins, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(venvs, "_make_venv", full)
    with pytest.raises(LabsError, match="the disk is full") as caught:
        install.install(NAME, lambda line: None)
    assert "LABS_CACHE" in caught.value.remedy
    assert not install.installed(NAME)


def test_a_wrong_name_is_told():
    for action in (install.installed, install.uninstall, lambda name: install.install(name, print)):
        with pytest.raises(LabsError, match="there is no engine 'vlm'; did you mean 'vllm'"):
            action("vlm")


def test_the_baseline_is_always_installed_and_cannot_be_removed():
    assert install.installed("transformers")
    with pytest.raises(LabsError, match="part of the course's own environment"):
        install.uninstall("transformers")


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm", "sglang", "medusa-llm"])
def test_every_pin_is_exact_and_torch_is_the_one_that_is_installed_first(engine):
    lines = [
        line
        for path in (ROOT / "environment" / "engines" / engine).glob("*.txt")
        for line in path.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines
    assert all("==" in line and " @ " not in line for line in lines)
    torch = [line for line in lines if line.startswith("torch==")]
    assert torch in ([], [f"torch=={venvs.TORCH_VERSION}"])
    assert not [line for line in lines if line.startswith(("nvidia-", "torchaudio"))]


@pytest.mark.parametrize(
    ("engine", "installed"),
    [
        ("llama.cpp", [["-r", "requirements.txt"]]),
        ("vllm", [["torch"], ["-r", "requirements.txt"], ["--no-deps", "-r", "no-deps.txt"]]),
        ("sglang", [["torch"], ["--no-deps", "-r", "no-deps.txt"]]),
        ("medusa-llm", [["torch"], ["-r", "requirements.txt"], ["--no-deps", "-r", "no-deps.txt"]]),
    ],
)
def test_pytorch_comes_first_and_what_may_bring_nothing_along_comes_last_and_alone(engine, installed):
    steps = install._steps(engine)
    found = [["torch"] if step is venvs.TORCH else [Path(word).name for word in step.pip_args] for step in steps]
    assert found == installed
