"""What goes wrong with real engines, and kill -9 of the kernel that holds one.

A file of its own: each test starts an engine, and the ones of `test_real_engines.py` are shared by a whole module.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from labs_helpers.engines import ports, process, reaper, registry, runlock
from labs_helpers.errors import LabsError
from tests.engines.leftovers import unused_shared_memory

ENGINES = [
    pytest.param(name, marks=pytest.mark.engine(name)) for name in ("transformers", "llama.cpp", "vllm", "sglang")
]
WITH_CHILDREN = [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("vllm", "sglang")]


@pytest.mark.parametrize("name", ENGINES)
def test_a_model_that_is_not_there_is_named_before_anything_starts(name):
    with pytest.raises(LabsError, match="/nowhere/model does not exist"), process.serve(name, model="/nowhere/model"):
        pass


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_a_real_engine_that_dies_while_starting_shows_why(name):
    with pytest.raises(LabsError) as caught, process.serve(name, options={"extra_args": ("--no-such-flag",)}):
        pass
    assert f"{registry.get(name).title} ended with exit code 2" in str(caught.value)
    assert "unrecognized arguments: --no-such-flag" in str(caught.value)


@pytest.mark.engine("llama.cpp")
def test_a_damaged_gguf_is_an_error_with_the_engines_own_words(tmp_path):
    from labs_helpers.model.spec import gguf_path

    damaged = tmp_path / "cut.gguf"
    damaged.write_bytes(gguf_path("f32").read_bytes()[:500_000])
    with pytest.raises(LabsError, match=r"llama\.cpp did not start"), process.serve("llama.cpp", model=damaged):
        pass


KERNEL_CELL = """
from labs_helpers.engines import process
print("starting", flush=True)
async with process.serve({name!r}, precision="fp32") as server:
    print("serving", flush=True)
    import asyncio
    await asyncio.sleep(600)
"""


@pytest.mark.parametrize("name", WITH_CHILDREN)
@pytest.mark.parametrize("moment", ["starting", "serving"])
def test_kill_9_of_a_jupyter_kernel_leaves_nothing_of_the_engine(name, moment, tmp_path, eventually):
    """The case the two guards exist for: a real kernel, a real engine of several processes, and five seconds."""
    from jupyter_client import KernelManager

    # a temporary folder of its own, with a short name, since another test may run an engine at the same time
    temporary = Path(tempfile.mkdtemp(prefix="kill9-", dir="/tmp"))
    shared = unused_shared_memory()
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel(cwd=str(tmp_path), env={**os.environ, "TMPDIR": str(temporary)})
    client = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        client.execute(KERNEL_CELL.format(name=name))
        pid, told = kernel.provisioner.pid, ""
        deadline = time.monotonic() + 540
        # "starting" is far enough into the start that the engine has processes of its own below the two guards
        while moment not in told or len(reaper.descendants(pid)) < 5:
            assert time.monotonic() < deadline
            told += said(client)
        tree = set(reaper.descendants(pid))
        port = int(runlock.read_lock(runlock.lock_path())["url"].rsplit(":", 1)[1])
        kernel.provisioner.process.send_signal(signal.SIGKILL)
        eventually(lambda: not tree & set(reaper.parents()), 5)
        assert ports.listener(port) is None, "the port is still open"
        eventually(lambda: not unused_shared_memory() - shared, 5)
        left = [path.name for kind in ("labs-engine-*", "vllm*", "sglang*") for path in temporary.glob(kind)]
        assert not left, "temporary files are left"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
        shutil.rmtree(temporary, ignore_errors=True)


def said(client: Any) -> str:
    """What the kernel printed in the last half second; a failure there is a failure here."""
    try:
        message = client.get_iopub_msg(timeout=0.5)
    except queue.Empty:
        return ""
    assert message["msg_type"] != "error", "\n".join(message["content"].get("traceback", []))
    return str(message["content"].get("text", ""))
