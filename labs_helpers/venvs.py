"""Virtual environments, built from exact pins and counted as installed only when they are whole.

Standard library only: the launcher imports this before anything is installed. The kernel's environment (`.venv`)
and every engine's are built by the same function, so that both are resumable, logged, locked and interruptible.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.errors import LabsError

TORCH_VERSION = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU builds, asked only when the default index would bring CUDA packages."""

STAMP = ".labs-ready"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One `pip install`: what the person reads while it runs, and pip's arguments."""

    title: str
    pip_args: tuple[str, ...]


TORCH = Step(f"PyTorch {TORCH_VERSION}", ("torch==" + TORCH_VERSION,))
"""The step that installs PyTorch: the CPU build where there is no NVIDIA GPU, never the CUDA stack there."""


def python(path: Path) -> Path:
    """The interpreter of the environment at `path`."""
    return path / "bin" / "python"


def key(*parts: str | Path) -> str:
    """A fingerprint of what an environment is built from; files count by content, and so does the interpreter."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {platform.machine()} gpu={has_nvidia_gpu()}".encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:16]


def ready(path: Path, expected: str) -> bool:
    """True when the environment is whole and was built from what `expected` fingerprints."""
    try:
        return (path / STAMP).read_text().strip() == expected and python(path).exists()
    except OSError:
        return False


def has_nvidia_gpu() -> bool:
    """True where the NVIDIA driver is loaded. Reads two paths; starts nothing."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def build(path: Path, steps: Sequence[Step], *, expected: str, title: str, report: Report, log: Path) -> None:
    """Make the environment at `path` from `steps`, unless it is already whole.

    The stamp is written last: a build that was interrupted is repeated, with pip's cache making it short.

    Raises:
        LabsError: pip failed (the log's last lines are shown), the disk is full, or the folder may not be written.
        KeyboardInterrupt: passed on after pip was stopped; nothing half-installed counts as installed.
    """
    if ready(path, expected):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.parent / f"{path.name}.lock", title, report):
            if ready(path, expected):
                return
            (path / STAMP).unlink(missing_ok=True)
            log.write_text(f"{title}: {path}\n")
            if not python(path).exists() or not _same_interpreter(path):
                report(f"{title}: new environment in {path} ...")
                _make_venv(path, log)
            for number, step in enumerate(steps, 1):
                _run_step(path, step, f"{title} [{number}/{len(steps)}] {step.title}", report, log)
            (path / STAMP).write_text(expected + "\n")
    except OSError as error:
        raise _disk_error(error, path) from error


def _run_step(path: Path, step: Step, label: str, report: Report, log: Path) -> None:
    args = step.pip_args
    report(f"{label} ...")
    if step is TORCH:
        args = (*args, *_torch_index(path, log))
    started = time.monotonic()
    code = _pip(
        path,
        ["install", "--progress-bar", "off", *args],
        log,
        lambda line: report(f"{label}: {time.monotonic() - started:.0f} s, {line}"),
    )
    if code:
        raise LabsError(f"{label} failed (pip exit code {code}):\n{tail(log)}", f"the whole log is {log}")
    report(f"{label}: done in {time.monotonic() - started:.0f} s")


def _torch_index(path: Path, log: Path) -> tuple[str, ...]:
    """Extra pip arguments so that a machine without an NVIDIA GPU gets the CPU build.

    pip is asked first, without installing, what the default index would bring.
    """
    if has_nvidia_gpu():
        return ()
    report_file = path / ".torch-plan.json"
    code = _pip(path, ["install", "--dry-run", "--quiet", "--report", str(report_file), *TORCH.pip_args], log)
    plan = json.loads(report_file.read_text()) if code == 0 else {}
    report_file.unlink(missing_ok=True)
    names = [item["metadata"]["name"].lower() for item in plan.get("install", [])]
    brings_cuda = any(name.startswith(("nvidia-", "cuda-", "triton")) for name in names)
    return ("--index-url", TORCH_CPU_INDEX) if brings_cuda or code else ()


def _make_venv(path: Path, log: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with log.open("a") as out:
        command = [sys.executable, "-m", "venv", str(path)]
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        shutil.rmtree(path, ignore_errors=True)
        text = tail(log)
        if "ensurepip" in text:
            raise LabsError(
                f"{sys.executable} cannot make virtual environments (ensurepip is missing)",
                "sudo apt-get install python3-venv",
            )
        raise LabsError(f"cannot make a virtual environment in {path}:\n{text}", f"the whole log is {log}")


def _same_interpreter(path: Path) -> bool:
    try:
        config = (path / "pyvenv.cfg").read_text()
    except OSError:
        return False
    wanted = f"version = {sys.version_info.major}.{sys.version_info.minor}."
    return any(line.startswith(wanted) for line in config.splitlines())


def _pip(path: Path, args: Sequence[str], log: Path, on_line: Report = lambda line: None) -> int:
    """Run pip in its own process group; on Ctrl-C the whole group is stopped before the interrupt is passed on."""
    # pip's own cache is the wheel cache all environments share
    command = [str(python(path)), "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
        stdin=subprocess.DEVNULL,
    )
    try:
        with log.open("a") as out:
            assert process.stdout is not None
            for line in process.stdout:
                out.write(line)
                out.flush()
                if line.strip() and not line.startswith(("WARNING", "Looking in")):
                    on_line(line.strip()[:80])
        return process.wait()
    except BaseException:
        _kill_group(process)
        raise


def _kill_group(process: subprocess.Popen[str]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            return


@contextlib.contextmanager
def _lock(path: Path, title: str, report: Report) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{title}: another process is installing it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _disk_error(error: OSError, path: Path) -> LabsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LabsError(
            f"the disk is full while installing into {path}",
            "free some space, or set LABS_CACHE to a folder on a larger disk",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LabsError(
            f"no permission to write {error.filename or path}",
            "set LABS_CACHE to a folder you own, or mend the permissions",
        )
    return LabsError(f"cannot install into {path}: {error.strerror or error}", "see the message above")
