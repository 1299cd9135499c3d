"""Inside the sandbox: run a notebook with papermill and hand back what came of it.

Reads {"notebook", "parameters", "cwd", "result", "cell_timeout_s", "student_timeout_s", "deadline_s",
"output_bytes"} as JSON from standard input; writes {"notebook", "error", "kind", "result", "result_mtime",
"last_cell_end"} as JSON to standard output. Whatever stands there was made beside the student's code and is a claim,
not a fact.

A cell that fails does not stop the notebook: the measurements after it are the student's too. A cell that hangs is
interrupted. Of papermill only its exception is trusted: after a dead kernel it marks every cell completed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

RESULT_BYTES = 8 << 20
# jsonschema would import it for a check nobody asks for here, and it builds a grammar for two seconds
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]


class OutputLimit(Exception):
    """The notebook printed more than it may."""


class Deadline(BaseException):
    """The notebook as a whole took too long."""


def main() -> None:
    import papermill.clientwrap  # noqa: F401 (while the grader gets ready, before it sends the job)

    job = json.load(sys.stdin)
    answer_fd = os.dup(1)  # the kernel must not inherit the pipe the answer goes through
    os.set_inheritable(answer_fd, False)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    answer = run(job)
    with os.fdopen(answer_fd, "w", encoding="utf-8", errors="replace") as out:
        json.dump(answer, out)
    os._exit(0)  # a kernel that will not stop is stopped with the sandbox


def run(job: dict[str, Any]) -> dict[str, Any]:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    class Client(PapermillNotebookClient):
        produced = 0
        last_end = 0.0

        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] in ("stream", "display_data", "execute_result", "error", "update_display_data"):
                Client.produced += len(json.dumps(msg["content"], default=str))
                if Client.produced > job["output_bytes"]:
                    raise OutputLimit(f"printed more than {job['output_bytes'] >> 20} MiB")
            return super().process_message(msg, cell, cell_index)

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            def patience(cell: Any) -> float:
                labs = cell.metadata.get("labs", {})
                return job["student_timeout_s"] if "added" in labs or "exercise" in labs else job["cell_timeout_s"]

            def ended(cell: Any, cell_index: int) -> None:
                Client.last_end = time.time()

            client = Client(
                nb_man,
                kernel_name=kernel_name,
                timeout_func=patience,
                interrupt_on_timeout=True,
                allow_errors=True,
                on_cell_complete=ended,
                startup_timeout=120,
                shutdown_kernel="immediate",
                iopub_timeout=10,
                raise_on_iopub_timeout=False,
                resources={"metadata": {"path": job["cwd"]}},
            )
            return client.execute()

    def too_long(_signal: int, _frame: Any) -> None:
        raise Deadline

    papermill_engines.register("grading", Engine)
    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, job["deadline_s"])
    notebook = nbformat.from_dict(job["notebook"])
    executed = Path(os.environ["HOME"]) / "executed.ipynb"
    error = kind = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                notebook,
                str(executed),
                engine_name="grading",
                kernel_name="python3",
                parameters=job["parameters"],
                progress_bar=False,
                cwd=job["cwd"],
                request_save_on_cell_execute=True,
                autosave_cell_every=0,
            )
    except papermill.PapermillExecutionError as failure:
        kind, error = "cell", f"{failure.ename}: {failure.evalue}"
    except DeadKernelError:
        kind, error = "dead-kernel", "the notebook's kernel died"
    except OutputLimit as failure:
        kind, error = "output", str(failure)
    except Deadline:
        kind, error = "time", f"the notebook took longer than {job['deadline_s']:.0f} s"
    except BaseException as failure:
        kind, error = "failed", "".join(traceback.format_exception_only(failure)).strip()[-1000:]
    signal.setitimer(signal.ITIMER_REAL, 0)
    answer = {
        "error": error[-4000:],
        "kind": kind,
        "notebook": read(executed),
        "result": None,
        "result_mtime": None,
        "last_cell_end": Client.last_end,
    }
    result = Path(job["result"])
    if result.is_file() and not result.is_symlink() and result.stat().st_size <= RESULT_BYTES:
        answer["result"] = result.read_text(errors="replace")
        answer["result_mtime"] = result.stat().st_mtime
    return answer


def read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None


main()
