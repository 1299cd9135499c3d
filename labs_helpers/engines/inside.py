"""A notebook's function, called in an engine's own environment: there its packages are, and nowhere else.

The function travels as text, its arguments and its result as JSON. So it must bring its own imports and use nothing
of the notebook but its arguments.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labs_helpers.engines.base import Server
from labs_helpers.engines.run import NOT_INHERITED
from labs_helpers.errors import LabsError

RUNNER = """
import __future__, json, sys
job = json.load(sys.stdin)
space = {"__name__": "notebook"}
# annotations name types of the notebook's imports, which are not here
exec(compile(job["source"], "<notebook>", "exec", __future__.annotations.compiler_flag), space)
answer = space[job["function"]](*job["arguments"])
with open(job["answer"], "w") as file:
    json.dump(answer, file)
"""
LAST_LINES = 12


def call(server: Server, function: Callable[..., Any], *arguments: Any, timeout_s: float = 300.0) -> Any:
    """Call `function(*arguments)` in the environment of the server's engine. What it prints is printed here.

    Args:
        server: a running server; its engine says which interpreter and settings are used.
        function: defined in a notebook cell or a file; it imports what it needs itself.
        arguments: JSON values.
        timeout_s: after this long it is stopped.

    Raises:
        LabsError: it failed, with the last lines it wrote; it took too long; or its result is no JSON.
    """
    spec = server.engine.launch(server.model, 1, **server.options)
    environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED} | dict(spec.env)
    name = getattr(function, "__name__", "the function")
    with tempfile.TemporaryDirectory(prefix="labs-inside-") as folder:
        answer = Path(folder) / "answer.json"
        job = json.dumps(
            {
                "source": textwrap.dedent(inspect.getsource(function)),
                "function": name,
                "arguments": arguments,
                "answer": str(answer),
            }
        )
        process = subprocess.Popen(
            [spec.argv[0], "-P", "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(job, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise LabsError(
                f"{name} took longer than {timeout_s:g} s in the environment of {server.engine.title}",
                "ask it for less, or give a larger timeout_s",
            ) from None
        finally:
            _end(process)
        print(out, end="")
        if process.returncode != 0 or not answer.exists():
            last = "\n".join(err.rstrip().splitlines()[-LAST_LINES:]) or f"exit code {process.returncode}"
            raise LabsError(
                f"{name} failed in the environment of {server.engine.title}:\n{last}",
                "it runs apart from this notebook: it may use its arguments and its own imports, and return JSON",
            )
        return json.loads(answer.read_text())


def _end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of it, whatever became of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
