"""The score of a map without information, if it is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.groups import Group
from captum_astro.evaluation.specification.methods import RANDOM
from captum_astro.metrics.declaration import RANDOM_MAPS, ChanceFrom


def chance(group: Group, everything: Sequence[Group]) -> NDArray[np.float64]:
    """The chance level of each method of a group, over the samples for which the method has a value.

    It is defined by `Metric.chance`: a number, derived from another metric's values of the same samples, or the score
    of the method ``Random``, if that was run.

    Args:
        group: The group of the levels.
        everything: All groups.

    Returns:
        ``(m,)``, NaN if unknown.

    Example:
        >>> from captum_astro.metrics.registry import metric_named
        >>> nothing = np.zeros(1, np.int64)
        >>> group = Group("vit", metric_named("SaCo"), "predicted", ["LRP"], nothing, np.ones((1, 1)), nothing)
        >>> chance(group, [group]).tolist()
        [0.0]
    """
    found = np.full(len(group.methods), np.nan)
    level = group.info.chance
    if isinstance(level, int | float):
        found[:] = level
    elif isinstance(level, ChanceFrom):
        values = _values(group, everything, level.metric)
        weight = group.valid if group.weight is None else group.weight
        return np.asarray(level.level(_mean(values[:, None], np.where(np.isnan(values)[:, None], 0, weight))))
    elif level == RANDOM_MAPS and RANDOM in group.methods:
        at = group.methods.index(RANDOM)
        found[:] = group.statistic(group.parts(group.valid)[:, at].sum(0))
    return found


def _values(group: Group, everything: Sequence[Group], metric: str) -> NDArray[np.float64]:
    """A metric's value for each sample of the group, ``(n,)``."""
    for other in everything:
        if other.model == group.model and other.info.name == metric:
            known = dict(zip(other.samples.tolist(), other.values[:, 0].tolist(), strict=True))
            return np.array([known.get(sample, np.nan) for sample in group.samples.tolist()], np.float64)
    return np.full(len(group.samples), np.nan)


def _mean(values: NDArray[np.float64], weight: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """The weighted mean over the samples; NaN if all weights are zero."""
    times = np.asarray(weight, np.float64)
    total, count = (np.where(times > 0, values, 0) * times).sum(0), times.sum(0)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean
