"""What this machine is, what is free on it, and how fast it can read memory: the ground every figure stands on.

`detection` says what it is, `memory` what is really free, `docker_daemon` whether containers can run,
`memory_bandwidth` how fast weights can be read, and `decode_roof` how fast any engine could possibly decode.
"""

from __future__ import annotations

from labs_helpers.machine.decode_roof import bytes_per_token, kv_bytes, roofline, roofline_measurement
from labs_helpers.machine.detection import Gpu, Machine, detect
from labs_helpers.machine.docker_daemon import DockerState, docker_state
from labs_helpers.machine.memory import Memory, free_memory, host_memory
from labs_helpers.machine.memory_bandwidth import SPARK_BANDWIDTH, Bandwidth, bandwidth

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
