"""The bench: a streaming client whose definitions are the lesson, loads, metrics and comparisons."""

from __future__ import annotations

from labs_helpers.bench.batching import STEPS, Simulated, StepCost, schedule, simulate_batching
from labs_helpers.bench.blocks import BlockAllocator, blocks_for, kv_bytes_per_token, unused_share
from labs_helpers.bench.client import open_session, stream
from labs_helpers.bench.compare import Comparison, compare
from labs_helpers.bench.decision import decision_table, rank
from labs_helpers.bench.live import PREEMPTIONS, Live, watch
from labs_helpers.bench.metrics import Event, percentile, percentile_or_max
from labs_helpers.bench.pool import KVPool, kv_pool, score_text
from labs_helpers.bench.prefix_cache import longest_prefix_first, predict_cached, prediction_error, simulate
from labs_helpers.bench.radix import RadixTree
from labs_helpers.bench.report import Limits, Run
from labs_helpers.bench.request import Request
from labs_helpers.bench.runner import run
from labs_helpers.bench.sample import Sample
from labs_helpers.bench.sweep import Sweep, goodput, sweep
from labs_helpers.bench.target import Endpoint

__all__ = [
    "PREEMPTIONS",
    "STEPS",
    "BlockAllocator",
    "Comparison",
    "Endpoint",
    "Event",
    "KVPool",
    "Limits",
    "Live",
    "RadixTree",
    "Request",
    "Run",
    "Sample",
    "Simulated",
    "StepCost",
    "Sweep",
    "blocks_for",
    "compare",
    "decision_table",
    "goodput",
    "kv_bytes_per_token",
    "kv_pool",
    "longest_prefix_first",
    "open_session",
    "percentile",
    "percentile_or_max",
    "predict_cached",
    "prediction_error",
    "rank",
    "run",
    "schedule",
    "score_text",
    "simulate",
    "simulate_batching",
    "stream",
    "sweep",
    "unused_share",
    "watch",
]
