"""How fast a class is graded: a simulated class on a lab without engines, `--jobs 1` against `--jobs 2`, in turns.

    python benchmarks/grading_scale.py                       # 120 students; about seven minutes
    python benchmarks/grading_scale.py --students 24         # for a look
    python benchmarks/grading_scale.py --json --out FILE     # the same as JSON, also into a file

Half of the class hands in the solution, half the untouched notebook; each a little different, so that nothing is
resumed. The class is graded in blocks, one with `--jobs 1`, the next with `--jobs 2`, and so on; each pair gives one
ratio. The projection for 300 students on N machines is calculated from the median block.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "grading"), str(ROOT / "tests" / "grading" / "toy")]

from benchmarks import outcome  # noqa: E402
from labs_helpers.errors import LabsError  # noqa: E402

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


def measure(students: int) -> dict[str, Any]:
    """Grade the class in blocks and say what each took."""
    from conftest import make_toy

    from labs_helpers.grading import batch
    from labs_helpers.grading.batch import Options

    head = outcome.head("grading scale")
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
                raise LabsError(f"block {block} was graded {scores}, not 30 and 100", "run ./labs test --only unit")
            if jobs == 1:
                alone += [grade.seconds for grade in grades]
            seconds = f"{each[jobs][-1]:.2f} s per notebook"
            print(f"block {block + 1}: {size} notebooks with --jobs {jobs}, {seconds}", file=sys.stderr, flush=True)
    ratios = [one / two for one, two in zip(*each.values(), strict=True)]
    best = median(each[2])
    return {
        **head,
        "students": size * PAIRS * len(JOBS),
        "seconds_per_notebook": {f"jobs {jobs}": [round(s, 3) for s in found] for jobs, found in each.items()},
        "one_notebook_s": {"median": round(median(alone), 2), "highest": round(max(alone), 2), "n": len(alone)},
        "jobs_2_against_1": {"median": round(median(ratios), 3), "pairs": [round(r, 3) for r in ratios]},
        "class_of_300_minutes": {f"{n} machines": round(300 * best / n / 60, 1) for n in (1, 2, 4, 8)},
    }


def show(found: dict[str, Any]) -> None:
    """The result as sentences, for a terminal."""
    one, ratio = found["one_notebook_s"], found["jobs_2_against_1"]
    print(f"one notebook, alone: {one['median']} s in the middle, {one['highest']} s at most, of {one['n']}")
    print(f"--jobs 2 against 1: {ratio['median']:.2f}x, pair by pair {ratio['pairs']}")
    for machines, minutes in found["class_of_300_minutes"].items():
        print(f"a class of 300 on {machines}: {minutes} min (calculated)")
    if warning := outcome.warning(found):
        print(warning)


def main() -> int:
    parser = outcome.parser(str(__doc__))
    parser.add_argument("--students", type=int, default=120)
    options = parser.parse_args()
    return outcome.run(options, lambda: measure(options.students), show)


if __name__ == "__main__":
    sys.exit(main())
