"""The rows of a benchmark as arrays: for each model, metric and explained class, a table of samples and methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.failed import has_failed
from captum_astro.metrics.declaration import Metric
from captum_astro.metrics.registry import all_metrics, metric_named, text_metrics

_NEEDED = ("sample", "model", "method", "metric", "explained", "value")


@dataclass(frozen=True)
class Group:
    """All methods' scores for one model, one metric and one explained class.

    Attributes:
        model: The model.
        info: The metric.
        explained: ``predicted``, ``true`` or ``-``.
        methods: m methods, in the order in which they first occur in the rows.
        samples: ``(n,)``, the sample indices.
        values: ``(n, m)``, NaN where there is none.
        failed: ``(m,)``, samples that ended in an error.
        counts: ``(n, m, parts)``, the counts of a pooled metric, zeros where there are none; None for other metrics.
    """

    model: str
    info: Metric
    explained: str
    methods: list[str]
    samples: NDArray[np.int64]
    values: NDArray[np.float64]
    failed: NDArray[np.int64]
    counts: NDArray[np.float64] | None = None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``(n, m)``, where there is a value, or known pixels to pool.

        For an image without one of the two classes mIoU has no value, but its pixels count for the pooled one.
        """
        weight = self.weight
        return ~np.isnan(self.values) if weight is None else weight > 0

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """``(n, m)``, the weight of a sample in a pooled metric; None for other metrics."""
        if self.counts is None or self.info.pooling is None:
            return None
        found: NDArray[np.float64] = self.counts[..., self.info.pooling.weight]
        return found

    def parts(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The summands over samples from which `statistic` is computed, ``(n, m, q)``; zeros for a dropped sample.

        Args:
            kept: ``(n, m)``, the samples that count for each method.
        """
        if self.counts is not None:
            return np.where(kept[..., None], self.counts, 0)
        return np.stack([np.where(kept, self.values, 0), kept], -1)

    def statistic(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value of a set of samples from the sum of their `parts`, ``(..., q)`` to ``(...)``; NaN for none.

        It is the mean of the samples' values, or the pooled value if the metric is pooled.
        """
        if self.counts is not None and self.info.pooling is not None:
            return self.info.pooling.value(sums)
        total, count = sums[..., 0], sums[..., 1]
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def groups(rows: pd.DataFrame) -> list[Group]:
    """The groups, models in order of occurrence, metrics in that of their declarations, ``predicted`` before ``true``.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`; for an unknown metric, higher is better.

    Raises:
        ValueError: If a column is missing, a row is repeated, or a pooled metric has a value without counts.

    Example:
        >>> rows = [(0, "vit", "LRP", "SaCo", "predicted", 0.5), (0, "vit", "ATTCAT", "SaCo", "predicted", None)]
        >>> table = pd.DataFrame(rows, columns=["sample", "model", "method", "metric", "explained", "value"])
        >>> [group] = groups(table)
        >>> group.methods, group.values.tolist()
        (['LRP', 'ATTCAT'], [[0.5, nan]])
    """
    missing = [name for name in _NEEDED if name not in rows]
    if missing:
        raise ValueError(
            f"rows: no column {', '.join(missing)}; they are those of captum_astro.evaluation.run.rows.Row."
        )
    key = ["model", "method", "metric", "explained", "sample"]
    twice = rows.duplicated(key)
    if twice.any():
        raise ValueError(f"rows: {' / '.join(map(str, rows.loc[twice, key].iloc[0]))} comes more than once.")
    found = [
        _group(str(model), metric_named(str(metric)), str(explained), own)
        for (model, metric, explained), own in rows.groupby(["model", "metric", "explained"], sort=False)
    ]
    models = {model: place for place, model in enumerate(pd.unique(rows["model"]))}
    known = {**all_metrics(), **text_metrics()}
    metrics = {name: place for place, name in enumerate([*known, *sorted(set(rows["metric"]) - set(known))])}
    return sorted(found, key=lambda g: (models[g.model], metrics[g.info.name], g.explained))


def _group(model: str, info: Metric, explained: str, own: pd.DataFrame) -> Group:
    methods = [str(name) for name in pd.unique(own["method"])]
    samples = np.unique(own["sample"].to_numpy(np.int64))
    row = np.searchsorted(samples, own["sample"].to_numpy(np.int64))
    column = pd.Categorical(own["method"], methods).codes
    given = own["value"].to_numpy(np.float64, na_value=np.nan)
    values = np.full((len(samples), len(methods)), np.nan)
    values[row, column] = given
    failed = np.zeros(len(methods), np.int64)
    if "error" in own:
        np.add.at(failed, column[has_failed(own).to_numpy(bool)], 1)
    counts = None
    if info.pooling is not None:
        counts = np.zeros((*values.shape, info.pooling.parts))
        curves = own["curve"] if "curve" in own else [None] * len(own)
        counts[row, column] = _counts(info, info.pooling.parts, curves, given)
    return Group(model, info, explained, methods, samples, values, failed, counts)


def _counts(metric: Metric, parts: int, curves: Iterable[Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The counts of each row, ``(rows, parts)``; zeros if it has neither a value nor counts."""
    found = np.zeros((len(values), parts))
    for place, (curve, value) in enumerate(zip(curves, values, strict=True)):
        there = curve is not None and np.size(curve) == parts
        if not there and not np.isnan(value):
            raise ValueError(
                f"rows: {metric.name} is pooled over the samples, by the {parts} counts in each one's curve."
            )
        if there and np.isfinite(np.asarray(curve, np.float64)).all():
            found[place] = curve
    return found
