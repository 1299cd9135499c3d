"""Start the oracle as a process of its own, and read its truth."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")
MODEL = "oracle"


@dataclass(frozen=True)
class OracleProcess:
    base_url: str
    pid: int

    def truths(self) -> list[dict[str, Any]]:
        """What really happened to each request since the last `forget`, in order of arrival."""
        with urllib.request.urlopen(f"{self.base_url}/truth") as answer:
            truths: list[dict[str, Any]] = json.load(answer)
        return truths

    def forget(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.base_url}/forget", method="POST")).close()


@contextmanager
def oracle(*arguments: str) -> Iterator[OracleProcess]:
    """A running oracle; it ends with the block, and with this process whatever becomes of it."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]
        yield OracleProcess(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
