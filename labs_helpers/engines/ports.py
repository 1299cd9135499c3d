"""Ports of 127.0.0.1: finding a free one, seeing who listens on one, and small requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs_helpers.errors import LabsError

LISTEN = "0A"
LOCAL = (
    "0100007F",
    "00000000",
    "00000000000000000000000000000000",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",
)
"""127.0.0.1 and the addresses that include or map to it, as /proc/net/tcp writes them."""


def free() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raises LabsError, naming who has it, when `port` is taken or cannot be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            holder = listener(port)
            who = f", by process {holder} ({_command(holder)})" if holder else ""
            reason = getattr(error, "strerror", None) or error
            raise LabsError(
                f"port {port} on 127.0.0.1 cannot be used: {reason}{who}",
                "choose another port, or leave it out: a free one is found",
            ) from None


def listener(port: int) -> int | None:
    """The process that listens on `port` of this machine; None when nobody does or it belongs to another user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, hexport = fields[1].partition(":")
                if fields[3] == LISTEN and int(hexport, 16) == port and address in LOCAL:
                    inodes.add(fields[9])
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(fd.readlink()) in wanted:
                        return int(process.name)
    return None


def request(
    method: str, port: int, path: str, body: Mapping[str, Any] | bytes | None = None, timeout_s: float = 120
) -> tuple[int, str]:
    """Status and text of one request to 127.0.0.1; status 0 and the reason when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {} if data is None else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()


def get_status(port: int, path: str, method: str = "GET") -> int:
    """Status of `http://127.0.0.1:port/path`; 0 when nobody answers."""
    return request(method, port, path, timeout_s=5)[0]


def post(port: int, path: str, body: Mapping[str, Any] | bytes, timeout_s: float = 120) -> tuple[int, str]:
    """Status and text of a POST of JSON, or of bytes as they are."""
    return request("POST", port, path, body, timeout_s)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "unknown"
