"""First program inside the sandbox: give up rights, take on limits, become the real program.

Standard library only, and alone in its folder: the sandbox shows this folder and hides the rest of grading.
Argument 1 is JSON {"uid": int or null, "limits": {name of an RLIMIT: value}}, the rest is the program.
"""

import contextlib
import ctypes
import json
import os
import resource
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24


def main() -> None:
    plan = json.loads(sys.argv[1])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")  # should the machine run out of memory after all, this goes first
    for name, value in plan["limits"].items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    if plan["uid"] is not None:
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


main()
