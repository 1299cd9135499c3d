"""How fast a class is graded: a simulated class on a lab without engines, `--jobs 1` against `--jobs 2`, in turns.

    python benchmarks/grading_scale.py                       # 120 students; about five minutes
    python benchmarks/grading_scale.py --students 300        # about twelve minutes
    python benchmarks/grading_scale.py --json --out FILE     # the same as JSON, also into a file

Half of the class hands in the solution, half the untouched notebook; each a little different, so that nothing is
resumed. The class is graded in blocks, one with `--jobs 1`, the next with `--jobs 2`, and so on; each pair gives one
ratio. The projection for 300 students on N machines is calculated from the median block.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "grading"), str(ROOT / "tests" / "grading" / "toy")]

from labs_helpers.machine import detect  # noqa: E402

QUIET = 0.5
"""Load average above which figures are shown, but not to be quoted."""
JOBS = (1, 2)
PAIRS = 3


def hand_in(folder: Path, numbers: range, notebooks: tuple[Path, Path]) -> None:
    """One folder per student."""
    for number in numbers:
        notebook = json.loads(notebooks[number % 2].read_text())
        notebook["metadata"]["student"] = number
        target = folder / f"student-{number:03d}"
        target.mkdir(parents=True)
        (target / "lab-3.3.9-toy.ipynb").write_text(json.dumps(notebook))


def measure(students: int, say: Any) -> dict[str, Any]:
    """Grade the class in blocks and say what each took."""
    from conftest import make_toy

    from labs_helpers.grading import batch
    from labs_helpers.grading.batch import Options

    busy = os.getloadavg()[0]
    size = max(2, students // (PAIRS * len(JOBS)))
    each: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    alone: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = make_toy(folder / "lab")
        for block, jobs in enumerate(JOBS * PAIRS):
            handed, out = folder / f"in{block}", folder / f"out{block}"
            hand_in(handed, range(block * size, (block + 1) * size), (lab.entry.solution, lab.entry.student))
            started = time.monotonic()
            grades = batch.grade(handed, Options(out=out, jobs=jobs), lambda line: None, lambda _: lab)
            each[jobs].append((time.monotonic() - started) / size)
            scores = sorted({grade.raw_score for grade in grades})
            if scores != [30, 100]:
                raise SystemExit(f"block {block} was graded {scores}, expected 30 and 100: no figure")
            if jobs == 1:
                alone += [grade.seconds for grade in grades]
            say(f"block {block + 1}: {size} notebooks with --jobs {jobs}, {each[jobs][-1]:.2f} s per notebook")
    ratios = [one / two for one, two in zip(*each.values(), strict=True)]
    best = median(each[2])
    return {
        "what": "grading scale",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": detect().label,
        "load_average_before": round(busy, 2),
        "quiet": busy < QUIET,
        "students": size * PAIRS * len(JOBS),
        "seconds_per_notebook": {f"jobs {jobs}": [round(s, 3) for s in found] for jobs, found in each.items()},
        "one_notebook_s": {"median": round(median(alone), 2), "highest": round(max(alone), 2), "n": len(alone)},
        "jobs_2_against_1": {"median": round(median(ratios), 3), "pairs": [round(r, 3) for r in ratios]},
        "class_of_300_minutes": {f"{n} machines": round(300 * best / n / 60, 1) for n in (1, 2, 4, 8)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=120)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    chosen = parser.parse_args()
    found = measure(chosen.students, lambda line: print(line, file=sys.stderr, flush=True))
    text = json.dumps(found, indent=1)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text + "\n")
    if chosen.json:
        print(text)
        return
    one, ratio = found["one_notebook_s"], found["jobs_2_against_1"]
    print(f"one notebook, alone: {one['median']} s in the middle, {one['highest']} s at most, of {one['n']}")
    print(f"--jobs 2 against 1: {ratio['median']:.2f}x, pair by pair {ratio['pairs']}")
    for machines, minutes in found["class_of_300_minutes"].items():
        print(f"a class of 300 on {machines}: {minutes} min (calculated)")
    if not found["quiet"]:
        print(f"load average {found['load_average_before']} at the start: not a quiet machine, do not quote")


if __name__ == "__main__":
    main()
