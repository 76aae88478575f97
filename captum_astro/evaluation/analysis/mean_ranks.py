"""The methods' mean ranks over all scores, and how stable they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.bootstrap import drawn_statistics, interval
from captum_astro.evaluation.analysis.groups import Group, groups
from captum_astro.metrics.ranking import ranks, stability

_COLUMNS = ["model", "method", "scores", "n", "mean_rank", "low", "high", "first", "agreement"]


def mean_ranks(rows: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each method's mean rank over all metrics that rank and all explained classes, in bootstrap samples of the images.

    One bootstrap sample has the same images for all metrics. Per metric the methods are ranked on the images that all
    of them have values for; a method without any has the last rank. Scores of the true class that repeat those of the
    predicted class count once.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        bootstrap: The number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Returns:
        Columns ``model``, ``method``, ``scores`` (how many were averaged), ``n`` (images), ``mean_rank`` with its 95 %
        interval ``low`` and ``high``, ``first`` (how often the method has the best mean rank) and ``agreement``
        (Kendall's tau b with the order of all images, one for all methods); the best method of each model first.

    Example:
        >>> rows = pd.DataFrame({"sample": [0, 1] * 2, "model": "vit", "method": ["VTranM"] * 2 + ["LRP"] * 2,
        ...                      "metric": "SaCo", "explained": "predicted", "value": [0.5, 0.5, 0.25, 0.25]})
        >>> mean_ranks(rows)[["method", "mean_rank", "first"]].values.tolist()
        [['VTranM', 1.0, 1.0], ['LRP', 2.0, 0.0]]
    """
    ranked = [group for group in groups(rows) if group.info.ranks and group.methods != ["-"] and group.valid.any()]
    found: list[tuple[Any, ...]] = []
    for model in dict.fromkeys(group.model for group in ranked):
        own = _distinct([group for group in ranked if group.model == model])
        names = list(dict.fromkeys(name for group in own for name in group.methods))
        each = [_ranks(group, names, bootstrap, seed) for group in own]
        whole, drawn = (np.mean([one[i] for one in each], axis=0) for i in (0, 1))
        low, high = interval(drawn)
        n = max(len(group.samples) for group in own)
        stable = stability(drawn, whole, n=n, larger_is_better=False)
        found += (
            (model, names[i], len(own), n, whole[i], low[i], high[i], stable.first[i], stable.agreement)
            for i in np.argsort(whole, kind="stable")
        )
    return pd.DataFrame(found, columns=_COLUMNS)


def _distinct(own: list[Group]) -> list[Group]:
    """The groups without those of the true class that have the values of the predicted class."""
    predicted = {group.info.name: group for group in own if group.explained == "predicted"}

    def repeated(group: Group) -> bool:
        other = predicted.get(group.info.name)
        return (
            group.explained == "true"
            and other is not None
            and group.methods == other.methods
            and np.array_equal(group.values, other.values, equal_nan=True)
        )

    return [group for group in own if not repeated(group)]


def _ranks(
    group: Group, names: list[str], bootstrap: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The methods' ranks, ``(m,)`` and ``(bootstrap, m)``; the last where a method has no value."""
    there = np.flatnonzero(group.valid.any(0))
    complete = np.asarray(group.valid[:, there].all(1))
    parts = group.parts(np.broadcast_to(complete[:, None], group.values.shape))[:, there]  # zeros: drawn all the same
    columns = [names.index(group.methods[i]) for i in there]
    up = group.info.direction > 0
    whole, drawn = np.full(len(names), len(names), float), np.full((bootstrap, len(names)), len(names), float)
    # a bootstrap sample may have no complete image: then all are tied
    whole[columns] = ranks(np.nan_to_num(group.statistic(parts.sum(0)))[None], larger_is_better=up)[0]
    drawn[:, columns] = ranks(np.nan_to_num(drawn_statistics(group, parts, bootstrap, seed)), larger_is_better=up)
    return whole, drawn
