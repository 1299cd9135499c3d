"""Hostile and broken submissions, each with the points it must get and the reason that must be given.

The toy lab's exercises are worth 40 (double) and 30 (total), its measurements 20 and 10.
"""

from __future__ import annotations

import copy
import io
import json
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ALL, EXERCISES, MEASURED = 100.0, 70.0, 30.0
NAME = "lab-3.3.9-toy.ipynb"

Notebook = Any
Write = Callable[[Path, Notebook], None]
"""Puts a submission into the batch folder; gets the solved notebook to start from."""


@dataclass(frozen=True)
class Specimen:
    """One submission: `student` is also its folder's name."""

    student: str
    write: Write
    score: float
    reason: str = ""
    """A regular expression that some reason or note of the grade must match."""
    rejected: bool = False


def save(folder: Path, notebook: Notebook, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(notebook))
    return path


def added(code: str, before: str = "exercise-double") -> Write:
    """The solved notebook with one more cell, before the named one."""

    def write(folder: Path, notebook: Notebook) -> None:
        at = next(i for i, cell in enumerate(notebook.cells) if cell.id == before)
        notebook.cells.insert(at, nbformat.v4.new_code_cell(code))
        save(folder, notebook)

    return write


def exercise(name: str, code: str) -> Write:
    """The solved notebook with another exercise cell."""

    def write(folder: Path, notebook: Notebook) -> None:
        next(cell for cell in notebook.cells if cell.id == f"exercise-{name}").source = code
        save(folder, notebook)

    return write


def both(first: str, name: str, code: str) -> Write:
    """An added cell and another exercise cell."""

    def write(folder: Path, notebook: Notebook) -> None:
        next(cell for cell in notebook.cells if cell.id == f"exercise-{name}").source = code
        added(first)(folder, notebook)

    return write


def changed(change: Callable[[Notebook], None]) -> Write:
    def write(folder: Path, notebook: Notebook) -> None:
        change(notebook)
        save(folder, notebook)

    return write


def raw(text: str | bytes, name: str = NAME) -> Write:
    def write(folder: Path, _notebook: Notebook) -> None:
        folder.mkdir()
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def zipped(fill: Callable[[zipfile.ZipFile, Notebook], None]) -> Write:
    def write(folder: Path, notebook: Notebook) -> None:
        with zipfile.ZipFile(folder.with_name(folder.name + ".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            fill(archive, notebook)

    return write


# -- what some of them do --------------------------------------------------------------------------------------------


def only_exercises(notebook: Notebook) -> None:
    notebook.cells = [c for c in notebook.cells if c.id.startswith("exercise-")]


def backwards(notebook: Notebook) -> None:
    notebook.cells.reverse()


def measuring_cell_rewritten(notebook: Notebook) -> None:
    for cell in notebook.cells:
        if "toy_lab.measure" in cell.source:
            cell.source = "print('nothing is measured')"


def ids_and_marks_lost(notebook: Notebook) -> None:
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"x{number}", {}


def doubled_exercise(notebook: Notebook) -> None:
    twin = copy.deepcopy(next(c for c in notebook.cells if c.id == "exercise-double"))
    twin.id, twin.source = "another", "def double(x):\n    return 0"
    notebook.cells.append(twin)


def older_minor_version(notebook: Notebook) -> None:
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        del cell["id"]


def bomb(archive: zipfile.ZipFile, _notebook: Notebook) -> None:
    archive.writestr(NAME, b"0" * (20 << 20))


def outside(archive: zipfile.ZipFile, notebook: Notebook) -> None:
    archive.writestr("../../escaped.ipynb", json.dumps(notebook))
    archive.writestr(NAME, json.dumps(notebook))


def link_in_zip(archive: zipfile.ZipFile, _notebook: Notebook) -> None:
    info = zipfile.ZipInfo(NAME)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def zip_in_zip(archive: zipfile.ZipFile, notebook: Notebook) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as nested:
        outside(nested, notebook)
    archive.writestr("inner.zip", inner.getvalue())


def plain_zip(archive: zipfile.ZipFile, notebook: Notebook) -> None:
    archive.writestr(f"my work/{NAME}", json.dumps(notebook))


def link_to_clean(folder: Path, _notebook: Notebook) -> None:
    folder.symlink_to(folder.with_name("clean-folder"))


def link_inside(folder: Path, _notebook: Notebook) -> None:
    folder.mkdir()
    (folder / NAME).symlink_to(folder.with_name("clean-folder") / NAME)


def twice(folder: Path, notebook: Notebook) -> None:
    save(folder, notebook)
    with zipfile.ZipFile(folder.with_name(folder.name + ".zip"), "w") as archive:
        plain_zip(archive, notebook)


def nothing(folder: Path, _notebook: Notebook) -> None:
    folder.mkdir()
    (folder / "essay.txt").write_text("my notebook is in the other e-mail")


def as_version_3(folder: Path, notebook: Notebook) -> None:
    save(folder, nbformat.convert(notebook, 3))


def two_notebooks(folder: Path, notebook: Notebook) -> None:
    save(folder, notebook)
    save(folder, notebook, "lab-3.3.9-toy (1).ipynb")


WRONG_DOUBLE = "def double(x):\n    return 'no'\nlab.check('double', double)"

FORGED = """
import json, datetime
from labs_helpers.results import LabResult, Measurement, Load
def forge(engine, path=lab.result_path, started=lab.result.started_at, late=0):
    common = dict(engine=engine, engine_version="9", machine="m", n=9, load=Load(concurrency=1))
    result = LabResult(lab="3.3.9", started_at=started, measurements=[
        Measurement(metric="output_throughput", value=9e6, **common),
        Measurement(metric="completion_tokens", value=9e6, **common)])
    result.finished_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=late)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json())
"""

LOOK_AROUND = """
import os
from labs_helpers.paths import ROOT
seen = []
for base in (ROOT / "labs_helpers/grading", ROOT / "tests", ROOT / "notebooks/solutions", ROOT / ".git", {roots}):
    for where, folders, files in os.walk(base):
        for name in files:
            try:
                text = open(os.path.join(where, name), errors="replace").read()
            except OSError:
                continue
            if text and not where.endswith("/toy") and "__pycache__" not in where:
                seen.append(os.path.join(where, name))
try:
    source = open(ROOT / "tests/grading/toy_course/lab_3_3_9.py").read()
except OSError:
    source = ""
print("SEEN", seen, repr(source), sorted(k for k in os.environ if "SECRET" in k))
"""

SERVER_LEFT = """
import subprocess, sys
for i in range(2):
    subprocess.Popen([sys.executable, "-c", "import os, time; os.fork() or os.setsid(); "
                      "open('/tmp/ZOO_LEFTOVER', 'w'); time.sleep(900)  # ZOO_LEFTOVER"], start_new_session=True)
subprocess.Popen([sys.executable, "-m", "http.server", "8133", "--bind", "127.0.0.1"], start_new_session=True)
"""

FAKE_SERVER = """
import contextlib, subprocess, sys, time, urllib.request
code = open(toy_lab.HERE / "toy_server.py").read().replace("time.sleep(0.02)", "pass")
@contextlib.contextmanager
def serve(port=8198):
    process = subprocess.Popen([sys.executable, "-c", code, str(port)])
    time.sleep(1)
    yield f"http://127.0.0.1:{port}"
    process.kill()
toy_lab.serve = serve
"""

WRITE_AFTER = (
    FORGED
    + """
import os
if os.fork() == 0:
    import time
    path = lab.result_path
    time.sleep(0.1)
    while True:
        if os.path.exists(path.with_name("finished")):
            time.sleep(0.3)
            while True:
                forge("toy")
                time.sleep(0.01)
        time.sleep(0.02)
real = lab.finish
def finish():
    lab.result_path.parent.mkdir(parents=True, exist_ok=True)
    lab.result_path.with_name("finished").touch()
lab.finish = finish
"""
)


def specimens(port: int, secret_folders: str, target: Path) -> list[Specimen]:
    """The zoo. `port` is a listener on the host's loopback; `secret_folders` a Python tuple of paths to look for;
    `target` a file outside that nobody may write."""
    return [
        Specimen("clean-folder", lambda folder, notebook: save(folder, notebook) and None, ALL),
        Specimen("clean-zip", zipped(plain_zip), ALL),
        Specimen(
            "loop-in-exercise", exercise("double", "def double(x):\n    while True: pass"), 60.0, "longer than 2 s"
        ),
        Specimen("loop-in-added-cell", added("while True: pass"), ALL, "KeyboardInterrupt"),
        Specimen(
            "loop-that-cannot-be-interrupted",
            added("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"),
            EXERCISES,
            "took longer|time limit|processor time",
        ),
        Specimen("fork-bomb", added("import os\nwhile True: os.fork()"), EXERCISES, "limit of 40 processes"),
        Specimen(
            "fork-bomb-in-exercise",
            exercise("double", "def double(x):\n    import os\n    while True: os.fork()"),
            60.0,
            "processes|longer than",
        ),
        Specimen(
            "memory-bomb",
            added("hoard = []\nwhile True: hoard.append(bytearray(b'x' * (1 << 24)))"),
            EXERCISES,
            "memory limit of 1500 MiB",
        ),
        Specimen(
            "shared-memory-bomb",
            added("f = open('/dev/shm/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"),
            ALL,
            "OSError",
        ),
        Specimen(
            "gigabyte-of-output",
            added("for _ in range(1024): print('x' * (1 << 20))"),
            EXERCISES,
            "printed more than 2 MiB|memory limit",
        ),
        Specimen(
            "gigabyte-of-raw-output",
            added("import os\nfor _ in range(1024): os.write(1, b'x\\n' * (1 << 19))"),
            EXERCISES,
            "printed more than 2 MiB|memory limit",
        ),
        Specimen(
            "fills-the-disk", added("f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"), ALL, "OSError"
        ),
        Specimen("deleted-cells", changed(only_exercises), ALL),
        Specimen("reordered-cells", changed(backwards), ALL),
        Specimen("measuring-cell-rewritten", changed(measuring_cell_rewritten), ALL),
        Specimen("marks-lost", changed(ids_and_marks_lost), ALL, "recognised by its function"),
        Specimen("exercise-doubled", changed(doubled_exercise), ALL, "2 cells claim to be double"),
        Specimen("format-4.4", changed(older_minor_version), ALL),
        Specimen("syntax-error", exercise("double", "def double(x):\n    return x *"), 60.0, "SyntaxError"),
        Specimen("dead-kernel", added("import os\nos._exit(0)"), EXERCISES, "kernel died"),
        Specimen(
            "dead-kernel-after-finish",
            changed(lambda n: n.cells.append(nbformat.v4.new_code_cell("import os\nos._exit(0)"))),
            ALL,
            "kernel died",
        ),
        Specimen(
            "exit-in-exercise", exercise("double", "def double(x):\n    import os\n    os._exit(0)"), 60.0, "died"
        ),
        Specimen(
            "signal-to-parent",
            added("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
            EXERCISES,
            "ended from inside",
        ),
        Specimen(
            "signal-to-all",
            added("import os, signal\nos.kill(-1, signal.SIGKILL)"),
            EXERCISES,
            "ended from inside|kernel died",
        ),
        Specimen(
            "check-overwritten",
            both("lab.check = lambda *a: print('passed')\nlab.result.checks.clear()", "double", WRONG_DOUBLE),
            60.0,
            "0 of 4",
        ),
        Specimen(
            "finish-overwritten", added("lab.finish = lambda: print('all measured')"), EXERCISES, "left no result"
        ),
        Specimen(
            "lab-overwritten",
            added("class Lab:\n    def __getattr__(self, name): return lambda *a, **k: None\nlab = Lab()"),
            EXERCISES,
            "left no result",
        ),
        Specimen(
            "forged-engine", added(FORGED + "lab.finish = lambda: forge('vllm')"), EXERCISES, "no engine 'vllm' ran"
        ),
        Specimen(
            "forged-figures",
            added(FORGED + "lab.finish = lambda: forge('toy')"),
            EXERCISES,
            "never grew faster|counted",
        ),
        Specimen(
            "forged-time", added(FORGED + "lab.finish = lambda: forge('toy', late=900)"), EXERCISES, "outside this run"
        ),
        Specimen(
            "results-written-after-the-run",
            added(WRITE_AFTER),
            EXERCISES,
            "after the notebook had ended|left no result|not believed",
        ),
        Specimen(
            "time-monkeypatched",
            added("import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() / 100"),
            80.0,
            "never grew faster",
        ),
        Specimen(
            "client-patched",
            added("real = toy_lab.generate\ntoy_lab.generate = lambda url, tokens: 50 * real(url, tokens)"),
            EXERCISES,
            "the engine itself counted",
        ),
        Specimen("server-faked", added(FAKE_SERVER), EXERCISES, "no engine 'toy' ran"),
        Specimen("looks-for-hidden-cases", added(LOOK_AROUND.replace("{roots}", secret_folders)), ALL),
        Specimen(
            "network-out",
            added(
                f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 2)\n"
                f"    print('CONNECTED')\nexcept OSError as error: print(error)"
            ),
            ALL,
        ),
        Specimen(
            "writes-outside",
            added(
                f"import os\nfor path in ({str(target)!r}, '/etc/ZOO', '/grader/ZOO', toy_lab.__file__ + 'ZOO'):\n"
                "    try:\n        os.makedirs(os.path.dirname(path), exist_ok=True)\n"
                "        open(path, 'w').write('x')\n"
                "        print('WROTE', path)\n    except OSError: pass"
            ),
            ALL,
        ),
        Specimen("server-left-running", added(SERVER_LEFT), ALL),
        Specimen(
            "odd-values",
            exercise(
                "double",
                "def double(x):\n    class Any(float):\n"
                "        def __eq__(self, other): return True\n    return Any('nan')",
            ),
            60.0,
            "0 of 4",
        ),
        Specimen(
            "endless-value", exercise("double", "def double(x):\n    a = []\n    a.append(a)\n    return a"), 60.0
        ),
        Specimen("always-raises", exercise("double", "def double(x):\n    raise TypeError"), 60.0, "0 of 4"),
        Specimen(
            "hostile-page",
            added(
                "from IPython.display import HTML, display\n"
                "display(HTML('<script>alert(1)</script>'))\n"
                "print('<script>alert(2)</script>')"
            ),
            ALL,
        ),
        Specimen("zip-slip", zipped(outside), 0.0, "leads outside", True),
        Specimen("zip-bomb", zipped(bomb), 0.0, "zip bomb", True),
        Specimen("zip-with-link", zipped(link_in_zip), 0.0, "holds a link", True),
        Specimen("zip-in-zip-slip", zipped(zip_in_zip), 0.0, "leads outside", True),
        Specimen("link-to-another-student", link_to_clean, 0.0, "link to somewhere else", True),
        Specimen("link-to-another-notebook", link_inside, 0.0, "link to somewhere else", True),
        Specimen("huge-json", raw(b'{"nbformat": 4, "cells": "' + b"x" * (51 << 20) + b'"}'), 0.0, "larger than", True),
        Specimen("deep-json", raw("[" * 200_000 + "]" * 200_000), 0.0, "not valid JSON|not a notebook", True),
        Specimen("cut-off", raw('{"nbformat": 4, "cells": ['), 0.0, "not valid JSON", True),
        Specimen("cells-of-wrong-form", raw('{"nbformat": 4, "cells": [1, null]}'), 0.0, "wrong form", True),
        Specimen("wrong-version", as_version_3, 0.0, "format 3", True),
        Specimen("no-notebook", nothing, 0.0, "no notebook", True),
        Specimen("two-notebooks", two_notebooks, 0.0, "2 notebooks of one lab", True),
        Specimen("same-student-twice", twice, 0.0, "2 submissions of one student", True),
        Specimen("Zoë Łukasz 李小龍", lambda folder, notebook: save(folder, notebook) and None, ALL),
        Specimen("=HYPERLINK(A1)", lambda folder, notebook: save(folder, notebook) and None, ALL),
    ]
