"""How the course starts notebook kernels of its own: over sockets in a private folder, not over TCP ports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from labs_helpers.engines.reaper import short_temporary_folder

if TYPE_CHECKING:
    from traitlets.config import Config


@contextmanager
def private_sockets() -> Iterator[Config]:
    """Configuration for a kernel manager whose sockets lie in a folder that only this user can open.

    Any user of the machine can connect to a TCP port. Left to itself, jupyter_client names its sockets relative to the
    working folder, where two kernels meet, and where a kernel that starts in another folder is never found.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="labs-kernel-", dir=short_temporary_folder()) as folder:  # mode 0700
        yield Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / "kernel")}})
