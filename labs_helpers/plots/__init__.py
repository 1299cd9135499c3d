"""Figures drawn from measurements: axes, units, sample counts and spread come from the records, never from the caller.

An engine has the same colour in every figure. Published figures get a panel of their own with their sources; they
never share an axis with measurements. Every function returns a `matplotlib` Figure that a notebook shows and
`savefig` writes.
"""

from __future__ import annotations

from labs_helpers.plots.bars import bars, references, startup_and_memory
from labs_helpers.plots.curves import latency_throughput, lines
from labs_helpers.plots.decisions import decision_matrix
from labs_helpers.plots.eviction import hit_rate_by_cache_size
from labs_helpers.plots.knee import knee
from labs_helpers.plots.live import live
from labs_helpers.plots.request import timeline
from labs_helpers.plots.roof import decode_vs_roofline
from labs_helpers.plots.speculation import (
    acceptance_by_position,
    cost_breakdown,
    methods_compared,
    speedup_curve,
    speedups,
)
from labs_helpers.plots.style import LabFigure, engine_colour
from labs_helpers.plots.token_tree import token_tree
from labs_helpers.plots.tree import radix_tree
from labs_helpers.plots.witnesses import witness_table

__all__ = [
    "LabFigure",
    "acceptance_by_position",
    "bars",
    "cost_breakdown",
    "decision_matrix",
    "decode_vs_roofline",
    "engine_colour",
    "hit_rate_by_cache_size",
    "knee",
    "latency_throughput",
    "lines",
    "live",
    "methods_compared",
    "radix_tree",
    "references",
    "speedup_curve",
    "speedups",
    "startup_and_memory",
    "timeline",
    "token_tree",
    "witness_table",
]
