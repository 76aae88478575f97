"""Methods compared with one of them, or with the best: paired differences and tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.bootstrap import drawn_statistics, interval
from captum_astro.evaluation.analysis.groups import Group, groups
from captum_astro.metrics.statistics import compare_many

REFERENCE = "VTranM"
_COMPARED = [
    "model", "metric", "explained", "method", "against", "n", "left_out", "difference", "low", "high", "effect", "p",
    "p_holm",
]  # fmt: skip


def comparisons(
    rows: pd.DataFrame, against: str | None = REFERENCE, bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compare each method with one of them, on the images that both have values for.

    The p-value is that of Wilcoxon's signed-rank test on the images' own values, two-sided. Holm's correction is over
    all comparisons of a model; against the best (None), over those by one metric for one explained class.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        against: The method to compare with; None for the best by each metric.
        bootstrap: The number of bootstrap samples for the interval.
        seed: Random seed of the bootstrap.

    Returns:
        Columns ``model``, ``metric``, ``explained``, ``method``, ``against``, ``n``, ``left_out`` (images without
        both), ``difference`` (method minus against; of the pooled values if the metric is pooled), its 95 % interval
        ``low`` and ``high``, ``effect`` (rank-biserial correlation of the images' values), ``p``, ``p_holm``.

    Raises:
        ValueError: If a model has no such method.

    Example:
        >>> rows = pd.DataFrame({"sample": [0, 1] * 2, "model": "vit", "method": ["VTranM"] * 2 + ["LRP"] * 2,
        ...                      "metric": "SaCo", "explained": "predicted", "value": [0.5, 0.5, 0.25, 0.25]})
        >>> comparisons(rows)[["method", "difference", "effect"]].values.tolist()
        [['LRP', -0.25, -1.0]]
    """
    found: list[dict[str, Any]] = []
    families: dict[Any, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    by_method = [group for group in groups(rows) if group.methods != ["-"]]
    for model in dict.fromkeys(group.model for group in by_method):
        names = dict.fromkeys(name for group in by_method if group.model == model for name in group.methods)
        if against is not None and against not in names:
            raise ValueError(f"{model}: no method {against!r} to compare with. Methods: {', '.join(names)}.")
    for group in by_method:
        if not group.info.ranks or (against is not None and against not in group.methods):
            continue
        at = best(group) if against is None else group.methods.index(against)
        family = families.setdefault(group.model if against is not None else len(families), {})
        for row, pair in _against(group, at, bootstrap, seed):
            found.append(row)
            if not np.isnan(pair[0] - pair[1]).all():
                family[_named(len(found) - 1, row)] = pair
    tested = {name: one for family in families.values() for name, one in compare_many(family, resamples=0).items()}
    for number, row in enumerate(found):
        if (one := tested.get(_named(number, row))) is not None:
            row.update(effect=one.effect_size, p=one.p_value, p_holm=one.p_holm)
    return pd.DataFrame(found, columns=_COMPARED)


def best(group: Group) -> int:
    """The index of the method with the best score; 0 if none has a score."""
    whole = group.info.direction * group.statistic(group.parts(group.valid).sum(0))
    return int(np.argmax(np.where(np.isnan(whole), -np.inf, whole)))


def _named(number: int, row: dict[str, Any]) -> str:
    return "{}: {model}, {metric}, {explained}, {method}".format(number, **row)


def _against(group: Group, at: int, bootstrap: int, seed: int) -> list[tuple[dict[str, Any], Any]]:
    """One row per other method, without its test, and the pair of values to be tested."""
    others = [i for i in range(len(group.methods)) if i != at]
    both = group.valid[:, others] & group.valid[:, [at]]
    kept = np.zeros_like(group.valid)
    parts = []
    for i, pair in zip(others, both.T, strict=True):
        kept[:, i] = kept[:, at] = pair
        parts.append(group.parts(kept)[:, [i, at]])
        kept[:, i] = False
    if not parts:
        return []
    stacked = np.stack(parts, 1)  # (n, m - 1, 2, q)
    whole = group.statistic(stacked.sum(0))
    drawn = drawn_statistics(group, stacked, bootstrap, seed)
    low, high = interval(drawn[..., 0] - drawn[..., 1])
    return [
        (
            {
                "model": group.model, "metric": group.info.name, "explained": group.explained,
                "method": group.methods[i], "against": group.methods[at],
                "n": int(both[:, k].sum()), "left_out": int((~both[:, k]).sum()),
                "difference": whole[k, 0] - whole[k, 1], "low": low[k], "high": high[k],
            },
            (group.values[both[:, k], i], group.values[both[:, k], at]),
        )
        for k, i in enumerate(others)
    ]  # fmt: skip
