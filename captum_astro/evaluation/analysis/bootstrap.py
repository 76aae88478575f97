"""The statistic of a group in bootstrap samples of its images, the same images for all methods.

A metric that the papers pool over the images (pixel accuracy, mIoU) is pooled again in every bootstrap sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.groups import Group
from captum_astro.metrics.ranking import resampled_sums


def drawn_statistics(group: Group, parts: NDArray[np.float64], bootstrap: int, seed: int) -> NDArray[np.float64]:
    """The statistic in each bootstrap sample: ``(n, ..., q)`` to ``(bootstrap, ...)``."""
    sums = resampled_sums(parts.reshape(len(parts), -1), bootstrap, seed)
    return group.statistic(sums.reshape(-1, *parts.shape[1:]))


def interval(drawn: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % percentile interval over the bootstrap samples that have a value; NaN if none has."""
    low, high = np.full((2, *drawn.shape[1:]), np.nan)
    there = ~np.isnan(drawn).all(0)
    if there.any():
        low[there], high[there] = np.nanpercentile(drawn[:, there], [2.5, 97.5], axis=0)
    return low, high
