"""The bench: a streaming client whose definitions are the lesson, loads, metrics and comparisons."""

from __future__ import annotations

from labs_helpers.bench.client import open_session, stream
from labs_helpers.bench.compare import Comparison, compare
from labs_helpers.bench.decision import decision_table, rank
from labs_helpers.bench.metrics import Event, percentile, percentile_or_max
from labs_helpers.bench.prefix_cache import longest_prefix_first, predict_cached, prediction_error, simulate
from labs_helpers.bench.radix import RadixTree
from labs_helpers.bench.report import Limits, Run
from labs_helpers.bench.request import Request
from labs_helpers.bench.runner import run
from labs_helpers.bench.sample import Sample
from labs_helpers.bench.target import Endpoint

__all__ = [
    "Comparison",
    "Endpoint",
    "Event",
    "Limits",
    "RadixTree",
    "Request",
    "Run",
    "Sample",
    "compare",
    "decision_table",
    "longest_prefix_first",
    "open_session",
    "percentile",
    "percentile_or_max",
    "predict_cached",
    "prediction_error",
    "rank",
    "run",
    "simulate",
    "stream",
]
