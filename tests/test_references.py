"""Published figures name their source and precision, and obey arithmetic."""

from __future__ import annotations

import pytest

from labs_helpers import references
from labs_helpers.machine import SPARK_BANDWIDTH, roofline


def test_every_figure_is_a_reference_with_source_precision_and_machine() -> None:
    assert len(references.ALL) > 20
    for m in references.ALL:
        assert m.source == "reference" and m.cited_from and m.precision and m.machine and m.model


def test_selection_by_metric_and_machine() -> None:
    rows = references.references("decode_throughput", machine=references.SPARK)
    assert {m.metric for m in rows} == {"decode_throughput"} and {m.machine for m in rows} == {"DGX Spark"}
    assert rows == [m for m in references.spark() if m.metric == "decode_throughput"]


def test_no_published_decode_of_a_dense_8b_model_on_a_spark_is_above_its_roofline() -> None:
    checked = 0
    for m in references.references("decode_throughput", machine=references.SPARK):
        if (bytes_read := references.DENSE_WEIGHT_BYTES.get((m.model, m.precision))) is not None:
            assert m.value < roofline(SPARK_BANDWIDTH, bytes_read), m
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize(("precision", "tokens_per_second"), [("bf16", 17), ("FP8", 34), ("NVFP4", 55), ("Q4_K_M", 59)])
def test_rooflines_of_llama_8b_on_a_spark(precision: str, tokens_per_second: int) -> None:
    bytes_read = references.DENSE_WEIGHT_BYTES["Llama-3.1-8B", precision]
    assert roofline(SPARK_BANDWIDTH, bytes_read) == pytest.approx(tokens_per_second, abs=0.6)


def test_the_40_tokens_of_a_well_known_table_cannot_be_bf16() -> None:
    assert roofline(SPARK_BANDWIDTH, references.DENSE_WEIGHT_BYTES["Llama-3.1-8B", "bf16"]) < 40 / 2
