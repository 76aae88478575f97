"""Each method's score by each metric, with its confidence interval and chance level."""

from __future__ import annotations

from typing import Any

import pandas as pd

from captum_astro.evaluation.analysis.bootstrap import drawn_statistics, interval
from captum_astro.evaluation.analysis.chance import chance
from captum_astro.evaluation.analysis.groups import groups

_SUMMARY = ["model", "method", "metric", "explained", "n", "failed", "mean", "low", "high", "chance"]


def summary(rows: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each method's score by each metric.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        bootstrap: The number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Returns:
        Columns ``model``, ``method`` (``-``: of the model), ``metric``, ``explained``, ``n`` (samples that count),
        ``failed`` (samples that ended in an error), ``mean`` (or the pooled value), its 95 % percentile interval
        ``low`` and ``high``, and ``chance``, NaN if unknown.

    Raises:
        ValueError: As `captum_astro.evaluation.analysis.groups.groups`.

    Example:
        >>> rows = pd.DataFrame({"sample": [0, 1], "model": "vit", "method": "LRP", "metric": "SaCo",
        ...                      "explained": "predicted", "value": [0.25, 0.75]})
        >>> summary(rows)[["n", "mean", "low", "high", "chance"]].iloc[0].tolist()
        [2.0, 0.5, 0.25, 0.75, 0.0]
    """
    everything = groups(rows)
    found: list[tuple[Any, ...]] = []
    for group in everything:
        parts, n = group.parts(group.valid), group.valid.sum(0)
        whole = group.statistic(parts.sum(0))
        low, high = interval(drawn_statistics(group, parts, bootstrap, seed))
        levels = chance(group, everything)
        found += (
            (group.model, method, group.info.name, group.explained,
             int(n[i]), int(group.failed[i]), whole[i], low[i], high[i], levels[i])
            for i, method in enumerate(group.methods)
        )  # fmt: skip
    return pd.DataFrame(found, columns=_SUMMARY)
