"""Our client under the load of client_fidelity.py: reads a task from its argument, writes its figures to a file."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labs_helpers import bench


async def main(task: dict[str, Any]) -> dict[str, Any]:
    prompts = [f"request {i} of the fidelity benchmark" for i in range(task["requests"])]
    cpu_s = []
    await bench.run(task["base_url"], prompts[:1], output_tokens=2, progress=False)  # imports on use happen here
    for tokens in (1, task["tokens"]):
        before = time.process_time()
        run = await bench.run(
            task["base_url"],
            prompts,
            concurrency=task["streams"],
            output_tokens=tokens,
            chat=task["chat"],
            progress=False,
        )
        run.measurements()
        cpu_s.append(time.process_time() - before)
    requests = [
        {"id": int(s.text.split()[0].removeprefix("#")), "sent": s.intended, "ttft": s.ttft_s, "tpot": s.tpot_s}
        for s in run.good
    ]
    return {"cpu_s": cpu_s, "requests": requests, "version": version("labs-helpers")}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Path(given["answer"]).write_text(json.dumps(asyncio.run(main(given))))
