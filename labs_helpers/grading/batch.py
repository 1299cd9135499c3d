"""Grading a whole class: plan, run what is new, write the gradebook. A broken submission never stops the others."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from labs_helpers import syllabus
from labs_helpers.errors import LabsError
from labs_helpers.grading import cluster, feedback, gradebook, isolate, rubric
from labs_helpers.grading.isolate import Isolation
from labs_helpers.grading.jobs import EngineTurn, Graded, Job, Options, grade_job
from labs_helpers.grading.records import Grade
from labs_helpers.grading.rubric import GradedLab
from labs_helpers.grading.submission import Submission, find
from labs_helpers.results import write_atomically

GRADER_VERSION = "1"
"""Raise it when the same submission would earn other points than before: all are then graded again."""


Labs = Callable[[str], GradedLab | None]


def grade(root: Path, options: Options, report: Callable[[str], None] = print, labs: Labs | None = None) -> list[Grade]:
    """Grade all submissions under `root` and write everything into `options.out`.

    Args:
        root: a folder of students, a zip of one, or a single notebook.
        options: how.
        report: takes lines for the person who waits.
        labs: finds a lab by id; the course's labs when None.

    Raises:
        LabsError: no submissions, no bubblewrap, a broken rubric or manual.csv, or a folder that cannot be written.
    """
    out_is_writable(options.out)
    manual = gradebook.read_manual(options.out / "manual.csv")
    unpacked = options.out / "state" / "unpacked"
    try:
        jobs = plan(find(root, unpacked), options, labs or _course_labs(options))
        known = {job.name: old for job in jobs if (old := _read(options.out, job))}
        new = [job for job in jobs if job.name not in known]
        report(f"{len(jobs)} submissions: {len(new)} to grade, {len(known)} unchanged")
        if options.dry_run:
            for job in jobs:
                what = job.submission.problem or ("unchanged" if job.name in known else "to grade")
                report(f"  {job.name:<40} {what}")
            return []
        fresh: dict[str, Grade] = {}
        for job, done in run_all(new, options, report):
            _write(options.out, job, done)
            fresh[job.name] = done.grade
        return finish(jobs, {**known, **fresh}, set(fresh), options, manual, report)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def plan(found: Sequence[Submission], options: Options, labs: Labs) -> list[Job]:
    """One job per student and lab. A submission that does not say its lab belongs to the only lab there is."""
    only = tuple(syllabus.find(name).id for name in options.only)
    named = {s.lab for s in found if s.lab}
    sole = only[0] if len(only) == 1 else next(iter(named)) if len(named) == 1 else ""
    jobs: dict[tuple[str, str], Job] = {}
    for s in found:
        name = s.lab or sole
        if only and name not in only:
            continue
        lab = labs(name) if name else None
        if lab is None and not s.problem:
            why = f"lab {name} is not graded here" if name else "the notebook does not say which lab it is of"
            s = replace(s, problem=why)
        at = (s.student.id.casefold(), name)
        if at in jobs:
            both = ", ".join(sorted((jobs[at].submission.path.name, s.path.name)))
            s = replace(jobs[at].submission, problem=f"2 submissions of one student: {both}; keep the one that counts")
        jobs[at] = Job(s, lab, fingerprint(s, lab, options))
    return list(jobs.values())


def fingerprint(submission: Submission, lab: GradedLab | None, options: Options) -> str:
    """A hash of everything the points depend on: submission, course notebook, rubric, cases, scale, grader."""
    digest = hashlib.sha256(f"{GRADER_VERSION} {options.scale} {options.trust} {submission.problem}".encode())
    digest.update(submission.content_hash.encode())
    if lab is not None:
        digest.update(lab.fingerprint().encode())
    return digest.hexdigest()


def _course_labs(options: Options) -> Labs:
    loaded: dict[str, GradedLab | None] = {}

    def get(lab_id: str) -> GradedLab | None:
        if lab_id not in loaded:
            try:
                entry = syllabus.find(lab_id)
            except LabsError:  # a notebook may claim to be of any lab
                return None
            loaded[lab_id] = rubric.load(entry, cases=options.cases, rubrics=options.rubrics) if entry.built else None
        return loaded[lab_id]

    return get


# -- running ---------------------------------------------------------------------------------------------------------


def run_all(jobs: Sequence[Job], options: Options, report: Callable[[str], None]) -> Iterator[tuple[Job, Graded]]:
    """Grade the jobs, several at a time, and yield each as it is done."""
    if not jobs:
        return
    if options.ray:
        yield from _with_progress(jobs, cluster.run(jobs, options), report)
        return
    isolation = Isolation(trusted=True) if options.trust else isolate.ready(report)
    isolate.raise_open_files()
    yield from _with_progress(jobs, _threads(jobs, options, isolation), report)


def _threads(jobs: Sequence[Job], options: Options, isolation: Isolation) -> Iterator[tuple[Job, Graded] | Job]:
    """Yields a job when it starts and (job, graded) when it is done."""
    started: list[Job] = []
    turn = EngineTurn()

    def work(job: Job) -> Graded:
        started.append(job)
        return grade_job(job, options, isolation, turn)

    executor = ThreadPoolExecutor(options.jobs, thread_name_prefix="grade")
    try:
        running: dict[Future[Graded], Job] = {executor.submit(work, job): job for job in jobs}
        while running:
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            while started:
                yield started.pop(0)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        isolation.stop()
        executor.shutdown(wait=True)


def _with_progress(
    jobs: Sequence[Job], events: Iterator[tuple[Job, Graded] | Job], report: Callable[[str], None]
) -> Iterator[tuple[Job, Graded]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    running: list[str] = []
    failed = done = 0
    with Progress(
        TextColumn("grading"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=len(jobs))
        for event in events:
            if isinstance(event, Job):
                running.append(event.name)
            else:
                job, graded = event
                running.remove(job.name) if job.name in running else None
                done += 1
                failed += graded.grade.status != "graded"
                points = f"{graded.grade.raw_score:g}" if graded.grade.status == "graded" else "no score"
                line = f"[{done}/{len(jobs)}] {job.name}: {points}" + (
                    f" ({graded.grade.reason})" if graded.grade.reason else ""
                )
                console.print(line, markup=False, highlight=False) if console.is_terminal else report(line)
                yield event
            now = ", ".join(running[:3]) + (f" and {len(running) - 3} more" if len(running) > 3 else "")
            text = f"{len(running)} running, {done} done, {failed} failed  {now}"
            bar.update(task, completed=done, description=text.replace("[", "("))


# -- what stays on disk ----------------------------------------------------------------------------------------------


def finish(
    jobs: Sequence[Job],
    grades: Mapping[str, Grade],
    fresh: set[str],
    options: Options,
    manual: gradebook.Manual,
    report: Callable[[str], None],
) -> list[Grade]:
    """Apply manual points, write the gradebook and every feedback page that is new or changed."""
    final = []
    pages: Counter[str] = Counter()
    for job in jobs:
        found = gradebook.apply_manual(_stamped(grades[job.name], job), manual)
        final.append(found)
        page = options.out / "feedback" / found.student.id / f"lab-{found.lab or 'unknown'}.html"
        seal = hashlib.sha256(f"{found.model_dump_json()}{options.policy}".encode()).hexdigest()
        seal_file = _state(options.out, job).with_suffix(".page")
        if job.name in fresh or not page.exists() or not seal_file.exists() or seal_file.read_text() != seal:
            feedback.write(
                page, found, _notebook(options.out, job), options.policy, job.lab.spec.title if job.lab else ""
            )
            write_atomically(seal_file, seal)
            pages["written"] += 1
    gradebook.write(options.out, final, options.policy)
    to_read = gradebook.write_manual(options.out / "manual.csv", final)
    report(gradebook.summary(final))
    report(f"gradebook.csv, grades.json, junit.xml and feedback/ are in {options.out}")
    if to_read:
        report(
            f"{to_read} answers are to be read: fill in the points in {options.out / 'manual.csv'} and run this again"
        )
    return final


def _stamped(grade: Grade, job: Job) -> Grade:
    """The grade with today's time of submission and name: neither is part of the fingerprint."""
    s = job.submission
    return grade.model_copy(
        update={
            "student": s.student,
            "key": job.key,
            "submitted_at": s.submitted_at.isoformat() if s.submitted_at else "",
        }
    )


def _state(out: Path, job: Job) -> Path:
    return out / "state" / job.submission.student.id / f"lab-{job.lab.id if job.lab else 'unknown'}.json"


def _read(out: Path, job: Job) -> Grade | None:
    try:
        found = Grade.model_validate_json(_state(out, job).read_bytes())
    except (OSError, ValueError):
        return None
    return found if found.key == job.key and found.status != "failed" else None


def _write(out: Path, job: Job, done: Graded) -> None:
    path = _state(out, job)
    if done.notebook:
        write_atomically(path.with_suffix(".ipynb"), done.notebook)
    else:
        path.with_suffix(".ipynb").unlink(missing_ok=True)
    write_atomically(path, done.grade.model_dump_json(indent=1))


def _notebook(out: Path, job: Job) -> Any:
    import nbformat

    try:
        return nbformat.from_dict(json.loads(_state(out, job).with_suffix(".ipynb").read_bytes()))
    except (OSError, ValueError):
        return None


def out_is_writable(out: Path) -> None:
    """Raise LabsError now rather than after an hour of grading."""
    probe = out / ".writable"
    write_atomically(probe, str(time.time()))
    probe.unlink()
