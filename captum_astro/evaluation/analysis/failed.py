"""A count of the failures in a benchmark."""

from __future__ import annotations

import pandas as pd

from captum_astro.evaluation.run.failures import UNDEFINED

_FAILED = ["model", "method", "error", "samples", "rows", "names"]


def has_failed(rows: pd.DataFrame) -> pd.Series:
    """Which rows have a failure; an undefined value with its note has none."""
    return rows["error"].notna() & ~rows["error"].astype("string").str.startswith(f"{UNDEFINED}: ").fillna(False)


def failures(rows: pd.DataFrame) -> pd.DataFrame:
    """Failures per model, method and error: how many samples and rows, and the names of the first samples."""
    if "error" not in rows:
        return pd.DataFrame(columns=_FAILED)
    failed = rows[has_failed(rows)].groupby(["model", "method", "error"], sort=False)
    found = [
        (*key, own["sample"].nunique(), len(own), ", ".join(list(dict.fromkeys(own["name"]))[:5]))
        for key, own in failed
    ]
    return pd.DataFrame(found, columns=_FAILED).sort_values("samples", ascending=False, ignore_index=True)
