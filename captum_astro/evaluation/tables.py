"""The tables of a benchmark: every score with its interval and chance level, comparisons, places, failures.

The bootstrap draws images, the same for all methods. A metric that the papers pool over the images (pixel accuracy,
mIoU) is pooled anew in every bootstrap sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.evaluation.chance import chance
from captum_astro.evaluation.groups import Group, groups
from captum_astro.metrics.ranking import resampled_sums, stability
from captum_astro.metrics.statistics import compare_many

REFERENCE = "VTranM"
_SUMMARY = ["model", "method", "metric", "explained", "n", "failed", "mean", "low", "high", "chance"]
_COMPARED = [
    "model", "metric", "explained", "method", "against", "n", "left_out", "difference", "low", "high", "effect", "p",
    "p_holm",
]  # fmt: skip
_RANKED = [
    "model", "metric", "explained", "method", "n", "left_out", "place", "mean_place", "low", "high", "first",
    "agreement",
]  # fmt: skip
_FAILED = ["model", "method", "error", "samples", "rows", "names"]


def summary(rows: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Each method's score by each metric.

    Args:
        rows: As `captum_astro.evaluation.rows.Row`.
        bootstrap: How many bootstrap samples are drawn.
        seed: Of the drawing.

    Returns:
        Columns ``model``, ``method`` (``-``: of the model), ``metric``, ``explained``, ``n`` (samples that count),
        ``failed`` (samples that ended in an error), ``mean`` (or the pooled value), its 95 % percentile interval
        ``low`` and ``high``, and ``chance``, NaN where it is not known.

    Raises:
        ValueError: As `captum_astro.evaluation.groups.groups`.

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
        low, high = _interval(_draw(group, parts, bootstrap, seed))
        levels = chance(group, everything)
        found += (
            (group.model, method, group.info.name, group.explained,
             int(n[i]), int(group.failed[i]), whole[i], low[i], high[i], levels[i])
            for i, method in enumerate(group.methods)
        )  # fmt: skip
    return pd.DataFrame(found, columns=_SUMMARY)


def comparisons(
    rows: pd.DataFrame, against: str | None = REFERENCE, bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Each method against one, on the images that count for both.

    The p-value is Wilcoxon's signed-rank test of the images' own values, two-sided. Holm's correction is over all
    comparisons of a model; against the best (None), over those by one metric for one class explained.

    Args:
        rows: As `captum_astro.evaluation.rows.Row`.
        against: The method; None for the best by each metric.
        bootstrap: How many bootstrap samples are drawn for the interval.
        seed: Of the drawing.

    Returns:
        Columns ``model``, ``metric``, ``explained``, ``method``, ``against``, ``n``, ``left_out`` (images without
        both), ``difference`` (method less against; of the pooled values where the metric is pooled), its 95 %
        interval ``low`` and ``high``, ``effect`` (rank-biserial correlation of the images' values), ``p``, ``p_holm``.

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
        if against is not None and against not in group.methods:
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


def ranking(rows: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The methods' places by each metric, and how sure they are.

    All methods are ranked on the same images: those that count for all of them. A method for which none
    counts is left out.

    Args:
        rows: As `captum_astro.evaluation.rows.Row`.
        bootstrap: How many bootstrap samples are drawn.
        seed: Of the drawing.

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
        there = np.flatnonzero(group.valid.any(0))
        complete = np.asarray(group.valid[:, there].all(1))
        if group.methods == ["-"] or not len(there) or not complete.any():
            continue
        parts = group.parts(np.broadcast_to(complete[:, None], group.values.shape))[complete][:, there]
        places = stability(
            _draw(group, parts, bootstrap, seed),
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


def failures(rows: pd.DataFrame) -> pd.DataFrame:
    """What failed: for each model, method and error, how many samples and rows, and the names of the first samples."""
    if "error" not in rows:
        return pd.DataFrame(columns=_FAILED)
    failed = rows[rows["error"].notna()].groupby(["model", "method", "error"], sort=False)
    found = [
        (*key, own["sample"].nunique(), len(own), ", ".join(list(dict.fromkeys(own["name"]))[:5]))
        for key, own in failed
    ]
    return pd.DataFrame(found, columns=_FAILED).sort_values("samples", ascending=False, ignore_index=True)


def best(group: Group) -> int:
    """The place in the list of the method with the best score; 0 where none has any."""
    whole = group.info.direction * group.statistic(group.parts(group.valid).sum(0))
    return int(np.argmax(np.where(np.isnan(whole), -np.inf, whole)))


def _named(number: int, row: dict[str, Any]) -> str:
    return "{}: {model}, {metric}, {explained}, {method}".format(number, **row)


def _against(group: Group, at: int, bootstrap: int, seed: int) -> list[tuple[dict[str, Any], Any]]:
    """A row for each other method, without its test, and the pair of values that is tested."""
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
    drawn = _draw(group, stacked, bootstrap, seed)
    low, high = _interval(drawn[..., 0] - drawn[..., 1])
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


def _draw(group: Group, parts: NDArray[np.float64], bootstrap: int, seed: int) -> NDArray[np.float64]:
    """The statistic in each bootstrap sample: ``(n, ..., q)`` to ``(bootstrap, ...)``."""
    sums = resampled_sums(parts.reshape(len(parts), -1), bootstrap, seed)
    return group.statistic(sums.reshape(-1, *parts.shape[1:]))


def _interval(drawn: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % percentile interval over the bootstrap samples that hold a value; NaN where none does."""
    low, high = np.full((2, *drawn.shape[1:]), np.nan)
    there = ~np.isnan(drawn).all(0)
    if there.any():
        low[there], high[there] = np.nanpercentile(drawn[:, there], [2.5, 97.5], axis=0)
    return low, high
