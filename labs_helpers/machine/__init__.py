"""What this machine is, what is free on it, and how fast it can read memory: the ground every figure stands on.

`detection` says what it is, `memory` what is really free, `docker_state` whether containers can run,
`bandwidth` how fast weights can be read and so how fast any engine could possibly decode.
"""

from __future__ import annotations

from labs_helpers.machine.bandwidth import (
    SPARK_BANDWIDTH,
    Bandwidth,
    bandwidth,
    bytes_per_token,
    kv_bytes,
    roofline,
    roofline_measurement,
)
from labs_helpers.machine.detection import Gpu, Machine, detect
from labs_helpers.machine.docker_state import DockerState, docker_state
from labs_helpers.machine.memory import Memory, free_memory, host_memory

__all__ = [
    "SPARK_BANDWIDTH",
    "Bandwidth",
    "DockerState",
    "Gpu",
    "Machine",
    "Memory",
    "bandwidth",
    "bytes_per_token",
    "detect",
    "docker_state",
    "free_memory",
    "host_memory",
    "kv_bytes",
    "roofline",
    "roofline_measurement",
]
