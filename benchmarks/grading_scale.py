"""How fast a class is graded: a simulated class on a lab without engines, `--jobs 1` against `--jobs 2`.

    .venv/bin/python benchmarks/grading_scale.py --students 30

Prints seconds per notebook, the ratio of the two, and the projected time for a class of 300 on N machines. Half of
the class hands in the solution, half the untouched notebook; each a little different, so that nothing is resumed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "grading"), str(ROOT / "tests" / "grading" / "toy")]


def simulated_class(folder: Path, students: int, notebooks: tuple[Path, Path]) -> None:
    """One folder per student."""
    for number in range(students):
        notebook = json.loads(notebooks[number % 2].read_text())
        notebook["metadata"]["student"] = number
        target = folder / f"student-{number:03d}"
        target.mkdir(parents=True)
        (target / "lab-3.3.9-toy.ipynb").write_text(json.dumps(notebook))


def main() -> None:
    from conftest import make_toy

    from labs_helpers.grading import batch
    from labs_helpers.grading.batch import Options

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    chosen = parser.parse_args()
    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = make_toy(folder / "lab")
        simulated_class(folder / "in", chosen.students, (lab.entry.solution, lab.entry.student))
        for jobs in chosen.jobs:
            started = time.monotonic()
            grades = batch.grade(
                folder / "in", Options(out=folder / f"out{jobs}", jobs=jobs), lambda line: None, lambda _: lab
            )
            seconds[jobs] = time.monotonic() - started
            scores = sorted({g.raw_score for g in grades})
            own = sorted(g.seconds for g in grades)[len(grades) // 2]
            each = seconds[jobs] / len(grades)
            print(f"jobs {jobs}: {len(grades)} notebooks in {seconds[jobs]:.1f} s, {each:.2f} s per notebook")
            print(f"  median of one {own:.2f} s; scores {scores}")
    first, last = min(seconds), max(seconds)
    print(f"jobs {last} against {first}: {seconds[first] / seconds[last]:.2f}x")
    per_notebook = seconds[last] / chosen.students
    for machines in (1, 2, 4, 8):
        print(f"300 notebooks on {machines} such machines: {300 * per_notebook / machines / 60:.1f} min (calculated)")


if __name__ == "__main__":
    main()
