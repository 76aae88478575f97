"""Which pairs of methods are told apart by a metric."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from captum_astro.evaluation.analysis.groups import groups
from captum_astro.metrics.statistics import compare_many

_COLUMNS = ["model", "metric", "explained", "better", "worse", "difference", "p_holm"]


def told_apart(rows: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """The pairs of methods of which one is better for certain, by each metric that ranks.

    The test is Wilcoxon's signed-rank test on the samples that both have values for, two-sided, with Holm's correction
    over all pairs of a metric and an explained class. A pair whose mean differs in the other direction than most
    samples do is not told apart.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        level: Corrected p-values below it are certain.

    Returns:
        Columns ``model``, ``metric``, ``explained``, ``better`` and ``worse`` (methods), ``difference`` (of the means,
        better minus worse) and ``p_holm``.

    Raises:
        ValueError: As `captum_astro.evaluation.analysis.groups.groups`.

    Example:
        >>> rows = pd.DataFrame({"sample": [*range(6)] * 2, "model": "vit", "method": ["VTranM"] * 6 + ["LRP"] * 6,
        ...                      "metric": "SaCo", "explained": "predicted", "value": [0.5] * 6 + [0.25] * 6})
        >>> told_apart(rows)[["better", "worse", "difference", "p_holm"]].values.tolist()
        [['VTranM', 'LRP', 0.25, 0.03125]]
    """
    found: list[tuple[Any, ...]] = []
    for group in groups(rows):
        if not group.info.ranks or group.methods == ["-"]:
            continue
        there = group.valid & (group.values == group.values)
        pairs = {
            f"{a} {b}": (group.values[both, a], group.values[both, b])
            for a, b in combinations(range(len(group.methods)), 2)
            if (both := there[:, a] & there[:, b]).any()
        }
        for name, one in compare_many(pairs, resamples=0).items():
            if one.p_holm is None or one.p_holm >= level or one.difference * one.effect_size <= 0:
                continue
            a, b = map(int, name.split())
            first = one.difference * group.info.direction > 0
            better, worse = (a, b) if first else (b, a)
            difference = one.difference if first else -one.difference
            key = (group.model, group.info.name, group.explained)
            found.append((*key, group.methods[better], group.methods[worse], difference, one.p_holm))
    return pd.DataFrame(found, columns=_COLUMNS)
