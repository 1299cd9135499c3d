"""Our figures beside the engines' own: the table that says whether to trust the client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from labs_helpers.errors import LabsError
from labs_helpers.results import Measurement

if TYPE_CHECKING:
    import pandas as pd


def witness_table(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """One row per figure that the engine counts too: ours, its own, and the difference in percent.

    Raises:
        LabsError: no engine reported a figure of its own.
    """
    import pandas as pd

    rows = [
        {
            "engine": m.engine,
            "precision": m.precision,
            "metric": m.metric,
            "load": m.load.label(),
            "unit": m.unit,
            "client": round(m.value, 2),
            "engine's own": round(m.witness, 2),
            "difference %": round(100 * (m.witness_error or 0.0), 2),
        }
        for m in measurements
        if m.witness is not None
    ]
    if not rows:
        raise LabsError("no engine's own figure was recorded beside ours", "record runs of engines that have counters")
    return pd.DataFrame(rows).set_index(["engine", "precision", "metric", "load"])
