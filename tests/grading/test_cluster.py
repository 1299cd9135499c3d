"""Spread over a Ray cluster of two workers, a batch gets the scores it gets here."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs_helpers.errors import LabsError
from labs_helpers.grading import batch
from labs_helpers.grading.batch import Options
from labs_helpers.grading.rubric import GradedLab


@pytest.mark.slow
def test_two_workers_give_the_same_scores(toy: GradedLab, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    for number in range(4):
        source = toy.entry.solution if number % 2 else toy.entry.student
        (tmp_path / "in" / f"s{number}").mkdir(parents=True)
        (tmp_path / "in" / f"s{number}" / "lab-3.3.9-toy.ipynb").write_bytes(source.read_bytes())
    (tmp_path / "in" / "broken").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        said: list[str] = []
        options = Options(out=tmp_path / "out", ray=cluster.address)
        there = batch.grade(tmp_path / "in", options, said.append, lambda lab_id: toy)
    finally:
        cluster.shutdown()
    here = batch.grade(tmp_path / "in", Options(out=tmp_path / "here", jobs=2), said.append, lambda lab_id: toy)
    assert [(g.student.id, g.raw_score, g.status) for g in there] == [
        (g.student.id, g.raw_score, g.status) for g in here]  # fmt: skip
    assert [g.raw_score for g in there] == [0, 30, 100, 30, 100]


def test_no_cluster_is_a_message(toy: GradedLab, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ada.ipynb").write_bytes(toy.entry.student.read_bytes())
    options = Options(out=tmp_path / "out", ray="127.0.0.1:1")
    with pytest.raises(LabsError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        batch.grade(tmp_path / "in", options, lambda line: None, lambda lab_id: toy)
