"""Starts llama.cpp's own HTTP server through xllamacpp. Run by the interpreter of llama.cpp's environment.

Imports nothing of labs_helpers: that package is not installed there. Its one argument is a JSON object, made by
`llamacpp.py`; unknown parameter names fail loudly, because a misspelt one would be a different experiment.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main(settings: dict) -> None:
    """Serve until SIGTERM. `settings` maps dotted names of xllamacpp.CommonParams to values; 'TYPE:' marks an enum."""
    # Blocked before the server starts its threads, so that they inherit the mask and only sigwait below sees them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    import xllamacpp

    params = xllamacpp.CommonParams()
    for dotted, value in settings.items():
        *path, last = dotted.split(".")
        target = params
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, last):
            sys.exit(f"xllamacpp has no parameter {dotted!r}")
        if last.startswith("cache_type_"):
            value = xllamacpp.ggml_type.__members__["GGML_TYPE_" + value.upper()]
        setattr(target, last, set(value) if last == "model_alias" else value)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")
    print(f"llama.cpp answers on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # The server's threads are not joined: a stream in flight would hold the exit up.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
