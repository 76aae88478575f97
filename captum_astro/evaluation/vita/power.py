"""How small a difference a paired test would still find."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike

from captum_astro.extras import needed

LEVEL, POWER = 0.05, 0.8
_MANY = 300  # from here the normal approximation is right to one per cent
_DRAWS = 4000


def smallest_difference(differences: ArrayLike, comparisons: int = 1, power: float = POWER) -> float:
    """The mean difference that Wilcoxon's signed-rank test finds with a given probability.

    For normal differences that scatter as much as those found. The level is 5 % over the comparisons, which is the
    first step of Holm's correction, its strictest. Up to 300 differences the test's exact distribution is used, and its
    power is simulated; above that the normal approximation, ``(z(1 - level / 2) + z(power)) s sqrt(pi / 3 / n)``.

    Args:
        differences: ``(n,)``, those found; only how they scatter counts. NaN is left out.
        comparisons: The number of comparisons that are corrected together.
        power: The probability, above 0 and below 1.

    Returns:
        The difference, in the unit of the scores; NaN for fewer than two differences, and where the test can find
        nothing, however large: with n differences no p-value is below ``2 ** (1 - n)``.

    Source:
        Lehmann, "Nonparametrics: Statistical Methods Based on Ranks", 1975, ch. 4.

    Example:
        >>> round(smallest_difference([0.1, -0.1, 0.2, 0.0] * 25), 4)
        0.0326
        >>> smallest_difference([0.1, -0.1, 0.2, 0.0])
        nan
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return math.nan
    return _shift(len(values), LEVEL / comparisons, power) * float(values.std(ddof=1))


@functools.cache
def _shift(n: int, level: float, power: float) -> float:
    """The mean that is found with the probability, of n normal differences with a standard deviation of 1."""
    stats = needed("The power of a test", "scipy.stats")

    if n > _MANY:
        z = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power))
        return z * math.sqrt(math.pi / 3 / n)
    most = _critical(n, level)
    if most < 0:
        return math.nan
    draws, ranks = np.random.default_rng(0).standard_normal((_DRAWS, n)), np.arange(1, n + 1)

    def found(mean: float) -> bool:
        moved = draws + mean
        order = np.abs(moved).argsort(1)
        return bool(((np.take_along_axis(moved, order, 1) < 0) @ ranks <= most).mean() >= power)

    low, high = 0.0, 1.0
    while not found(high):
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _critical(n: int, level: float) -> int:
    """The largest rank sum of the negative differences whose two-sided p-value is below the level; -1 for none."""
    chances = np.zeros(n * (n + 1) // 2 + 1)
    chances[0] = 1
    for rank in range(1, n + 1):
        chances[rank:] = chances[rank:] + chances[:-rank]
        chances /= 2
    return int(np.searchsorted(2 * chances.cumsum(), level)) - 1
