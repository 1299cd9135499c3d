"""A small system call filter for the sandbox: no new namespaces, no mounts, no kernel debugging.

Without it a program could make a user namespace of its own and mount file systems there that no limit counts.
Format: Linux, Documentation/userspace-api/seccomp_filter.rst; struct sock_filter of linux/filter.h.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from labs_helpers.errors import LabsError

CLONE_NEWUSER = 0x10000000
EPERM, ENOSYS = 1, 38
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16
X32 = 0x40000000


@dataclass(frozen=True)
class Architecture:
    """One machine's audit number and the numbers of the calls that matter here."""

    audit: int
    calls: Mapping[str, int]


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, {
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "bpf": 321,
        "perf_event_open": 298, "keyctl": 250, "add_key": 248, "request_key": 249, "open_by_handle_at": 304,
        "userfaultfd": 323, "move_mount": 429, "open_tree": 428, "fsopen": 430, "fsmount": 432, "clone": 56,
        "clone3": 435,
    }),
    "aarch64": Architecture(0xC00000B7, {
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "bpf": 280,
        "perf_event_open": 241, "keyctl": 219, "add_key": 217, "request_key": 218, "open_by_handle_at": 265,
        "userfaultfd": 282, "move_mount": 429, "open_tree": 428, "fsopen": 430, "fsmount": 432, "clone": 220,
        "clone3": 435,
    }),
}  # fmt: skip


def program(machine: str | None = None) -> bytes:
    """The filter as the kernel and `bwrap --seccomp` read it.

    Raises:
        LabsError: a processor whose call numbers are not listed.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise LabsError(f"no system call filter for {machine}", f"grade on {' or '.join(ARCHITECTURES)}")
    here = ARCHITECTURES[machine]
    refused = [number for name, number in here.calls.items() if name not in ("clone", "clone3")]
    rows = [
        _row(LOAD, ARCH), _row(JUMP_EQ, here.audit, 1, 0), _row(RETURN, KILL),
        _row(LOAD, NUMBER), _row(JUMP_GE, X32, 0, 1), _row(RETURN, ERRNO | EPERM),
    ]  # fmt: skip
    for number in refused:
        rows += [_row(JUMP_EQ, number, 0, 1), _row(RETURN, ERRNO | EPERM)]
    # glibc falls back from clone3, whose flags a filter cannot read, to clone
    rows += [_row(JUMP_EQ, here.calls["clone3"], 0, 1), _row(RETURN, ERRNO | ENOSYS)]
    rows += [_row(JUMP_EQ, here.calls["clone"], 0, 3), _row(LOAD, FIRST_ARGUMENT),
             _row(JUMP_SET, CLONE_NEWUSER, 0, 1), _row(RETURN, ERRNO | EPERM), _row(RETURN, ALLOW)]  # fmt: skip
    return b"".join(rows)


def _row(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
