"""What a program inside the sandbox can see, and the bubblewrap arguments that make it so."""

from __future__ import annotations

import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labs_helpers.grading.watch import Limits
from labs_helpers.paths import ROOT

INSIDE = Path(__file__).with_name("inside")
HOME = "/home/student"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt/nvidia", "/etc/alternatives", "/etc/ld.so.cache",
          "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts",
          "/etc/localtime", "/etc/fonts", "/etc/mime.types", "/etc/dgx-release",
          "/sys/devices/system", "/sys/class/dmi")  # fmt: skip


@dataclass(frozen=True)
class View:
    """What a program inside can see besides the system: all of it read-only."""

    folders: tuple[Path, ...] = ()
    placeholders: tuple[Path, ...] = ()
    """Files that must exist inside but are shown empty."""
    writable: tuple[Path, ...] = ()
    """Paths that are private and empty inside, and writable; they hide what stands there outside."""
    within: tuple[Path, ...] = ()
    """Read-only paths that lie inside a writable one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    """Where the program stands: private, empty and writable."""


def course_view(extra: Sequence[Path] = ()) -> View:
    """The interpreter and the course's library; no rubrics, no hidden cases, no solutions, no other submission."""
    python = {Path(sys.base_prefix), Path(sys.prefix), *map(Path, site.getsitepackages())}
    keep = [p for p in sorted(python) if not str(p).startswith("/usr/") and p != Path("/usr")]
    helpers = ROOT / "labs_helpers"
    shown = [child for child in sorted(helpers.iterdir()) if child.name not in ("grading", "__pycache__")]
    files = [path for name in ("environment", "pyproject.toml") if (path := ROOT / name).exists()]
    return View(folders=(*keep, *shown, *files, *extra), environment={"PYTHONPATH": str(ROOT)})


def program(name: str) -> list[str]:
    """The command line of one of the programs in `inside/`, as seen inside."""
    return [sys.executable, "-P", "-X", "pycache_prefix=/tmp/pycache", f"/grader/{name}.py"]


def environment(home: str) -> dict[str, str]:
    return {
        "HOME": home,
        "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "student",
        "LOGNAME": "student",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TERM": "dumb",
        "IPYTHONDIR": f"{home}/.ipython",
    }


def variables(values: Mapping[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in ("--setenv", name, value)]


def mounts(view: View, limits: Limits) -> list[str]:
    def private(path: str, size: int = limits.disk_bytes) -> list[str]:
        return ["--perms", "1777", "--size", str(size), "--tmpfs", path]

    def read_only(paths: Sequence[Path]) -> list[str]:
        return [part for path in paths for part in ("--ro-bind-try", str(path), str(path))]

    found = parents_of([Path(path) for path in SYSTEM])
    for path in SYSTEM:
        if Path(path).is_symlink() and path in ("/bin", "/sbin", "/lib", "/lib64"):
            found += ["--symlink", str(Path(path).readlink()), path]
        else:
            found += ["--ro-bind-try", path, path]
    found += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        *private("/dev/shm"),  # noqa: S108 (a private one)
        "--remount-ro",
        "/dev",
        *private("/tmp"),  # noqa: S108 (a private one)
        *parents_of([Path(HOME)]),
        *private(HOME),
        "--ro-bind",
        str(INSIDE),
        "/grader",
        *parents_of([*view.folders, *view.placeholders, *view.writable, *([view.cwd / "x"] if view.cwd else [])]),
        *read_only(view.folders),
    ]
    if view.cwd and view.cwd != Path(HOME):
        found += [*private(str(view.cwd)), *parents_of(view.placeholders)]
    for empty in view.placeholders:
        found += ["--ro-bind", "/dev/null", str(empty)]
    for folder in view.writable:
        found += private(str(folder))
    found += [*parents_of(view.within, "1777"), *read_only(view.within)]
    return [*found, "--remount-ro", "/", "--chdir", str(view.cwd or HOME)]


def parents_of(paths: Sequence[Path], rights: str = "0755") -> list[str]:
    """The folders above these paths, open to every user: bubblewrap would make them for its own user alone."""
    above = dict.fromkeys(folder for path in paths for folder in reversed(path.parents) if folder != Path("/"))
    known = {Path(p) for p in SYSTEM}
    wanted = [folder for folder in above if not known & {folder, *folder.parents}]  # those are the system's own
    return [part for folder in wanted for part in ("--perms", rights, "--dir", str(folder))]
