"""What a map without information would score, where that is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.groups import Group
from captum_astro.evaluation.specification.methods import RANDOM

_LABELLED = 1  # the place of the labelled pixels in the counts


def chance(group: Group, everything: Sequence[Group]) -> NDArray[np.float64]:
    """The chance level of each method of a group, over the samples that the method has a value for.

    It is the metric's own constant, `MetricInfo.chance`, where there is one. Of other metrics by mask it follows from
    the object's share of each image; of metrics by perturbation it is what the method ``Random`` reached, if that was
    run. Of a coin's mask with the object's share s, the IoU of the object is ``s / (1 + s)`` and of the background
    ``(1 - s) / (2 - s)``.

    Args:
        group: Whose levels.
        everything: All groups.

    Returns:
        ``(m,)``, NaN where it is not known.

    Example:
        >>> from captum_astro.evaluation.specification.metrics import METRICS
        >>> nothing = np.zeros(1, np.int64)
        >>> group = Group("vit", METRICS["SaCo"], "predicted", ["LRP"], nothing, np.ones((1, 1)), nothing)
        >>> chance(group, [group]).tolist()
        [0.0]
    """
    unknown = np.full(len(group.methods), np.nan)
    name = group.info.name
    if group.info.chance is not None:
        return np.full(len(group.methods), group.info.chance)
    if group.info.chance_metric is not None:
        share = _shares(group, everything, group.info.chance_metric)
        return _mean(share[:, None], group.valid & ~np.isnan(share)[:, None])
    if name == "mIoU" and group.counts is not None:
        share = _shares(group, everything, "object share")
        weight = np.where(np.isnan(share)[:, None], 0, group.counts[..., _LABELLED])
        s = _mean(share[:, None], weight)
        return np.asarray((s / (1 + s) + (1 - s) / (2 - s)) / 2)
    if group.info.kind == "perturbation" and RANDOM in group.methods:
        at = group.methods.index(RANDOM)
        unknown[:] = group.statistic(group.parts(group.valid)[:, at].sum(0))
    return unknown


def _shares(group: Group, everything: Sequence[Group], metric: str) -> NDArray[np.float64]:
    """The chance metric's value for each sample of the group, ``(n,)``."""
    for other in everything:
        if other.model == group.model and other.info.name == metric:
            known = dict(zip(other.samples.tolist(), other.values[:, 0].tolist(), strict=True))
            return np.array([known.get(sample, np.nan) for sample in group.samples.tolist()], np.float64)
    return np.full(len(group.samples), np.nan)


def _mean(values: NDArray[np.float64], weight: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Over the samples, leaving out what has no weight; NaN where nothing has any."""
    times = np.asarray(weight, np.float64)
    total, count = (np.where(times > 0, values, 0) * times).sum(0), times.sum(0)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean
