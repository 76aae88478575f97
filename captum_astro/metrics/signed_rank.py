"""Wilcoxon's signed-rank test: the p-value of ``scipy.stats.wilcoxon``, fast enough for many comparisons.

Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from captum_astro.extras import needed

_FEW = 13  # up to here scipy enumerates all signs if ranks tie, which takes seconds; counting is almost free


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p-value of the hypothesis that differences of pairs are symmetric around zero.

    Args:
        differences: ``(n,)``, without zeros.

    Returns:
        The exact p-value up to 13 differences, and up to 50 if no two have equal size; otherwise the normal
        approximation, corrected for ties. It is 1 if there are no differences.

    Example:
        >>> signed_rank_p(np.array([1.0, 1.0, 1.0, -1.0]))
        0.625
    """
    stats = needed("Wilcoxon's test", "scipy.stats")

    if not len(differences):
        return 1.0
    if len(differences) > _FEW:
        return float(stats.wilcoxon(differences).pvalue)
    ranks = (2 * stats.rankdata(np.abs(differences))).round().astype(np.int64)  # tied ranks are multiples of one half
    ways = np.zeros(ranks.sum() + 1)  # over all signs, how often the positive ranks have each sum
    ways[0] = 1
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[:-rank]
    observed = ranks[differences > 0].sum()
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum()) / 2.0 ** len(ranks)
    return float(min(1.0, 2 * tail))
