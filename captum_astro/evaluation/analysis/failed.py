"""A count of the failures in a benchmark."""

from __future__ import annotations

import pandas as pd

_FAILED = ["model", "method", "error", "samples", "rows", "names"]


def failures(rows: pd.DataFrame) -> pd.DataFrame:
    """Failures per model, method and error: how many samples and rows, and the names of the first samples."""
    if "error" not in rows:
        return pd.DataFrame(columns=_FAILED)
    failed = rows[rows["error"].notna()].groupby(["model", "method", "error"], sort=False)
    found = [
        (*key, own["sample"].nunique(), len(own), ", ".join(list(dict.fromkeys(own["name"]))[:5]))
        for key, own in failed
    ]
    return pd.DataFrame(found, columns=_FAILED).sort_values("samples", ascending=False, ignore_index=True)
