"""The methods' ranks by each metric, and their uncertainty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from captum_astro.evaluation.analysis.bootstrap import drawn_statistics
from captum_astro.evaluation.analysis.groups import groups
from captum_astro.metrics.ranking import stability

_RANKED = [
    "model", "metric", "explained", "method", "n", "left_out", "place", "mean_place", "low", "high", "first",
    "agreement",
]  # fmt: skip


def ranking(rows: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The methods' ranks by each metric, and their uncertainty.

    All methods are ranked on the same images: those that all of them have values for. A method without any such image
    is left out.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        bootstrap: The number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Returns:
        Columns ``model``, ``metric``, ``explained``, ``method``, ``n``, ``left_out``, ``place`` (1 the best),
        ``mean_place`` with its 95 % interval ``low`` and ``high``, ``first`` (how often the method is the best) and
        ``agreement`` (one for all methods), as in `captum_astro.metrics.ranking.RankStability`.

    Example:
        >>> rows = pd.DataFrame({"sample": [0, 1] * 2, "model": "vit", "method": ["VTranM"] * 2 + ["LRP"] * 2,
        ...                      "metric": "SaCo", "explained": "predicted", "value": [0.5, 0.5, 0.25, 0.25]})
        >>> ranking(rows)[["method", "place", "first"]].values.tolist()
        [['VTranM', 1.0, 1.0], ['LRP', 2.0, 0.0]]
    """
    found: list[tuple[Any, ...]] = []
    for group in groups(rows):
        if not group.info.ranks:
            continue
        there = np.flatnonzero(group.valid.any(0))
        complete = np.asarray(group.valid[:, there].all(1))
        if group.methods == ["-"] or not len(there) or not complete.any():
            continue
        parts = group.parts(np.broadcast_to(complete[:, None], group.values.shape))[complete][:, there]
        places = stability(
            drawn_statistics(group, parts, bootstrap, seed),
            group.statistic(parts.sum(0)),
            n=int(complete.sum()),
            left_out=int((~complete).sum()),
            larger_is_better=group.info.direction > 0,
        )
        found += (
            (group.model, group.info.name, group.explained, group.methods[method], places.n, places.left_out,
             places.places[i], places.mean_places[i], places.low[i], places.high[i], places.first[i], places.agreement)
            for i, method in enumerate(there)
        )  # fmt: skip
    return pd.DataFrame(found, columns=_RANKED)
