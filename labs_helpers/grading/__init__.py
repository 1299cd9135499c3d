"""Grading: submissions in, gradebook and feedback out. `batch.grade` is the entry; docs/INSTRUCTORS.md the manual."""
