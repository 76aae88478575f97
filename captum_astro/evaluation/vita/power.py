"""How small a difference a paired test would still find."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from captum_astro.extras import needed

LEVEL, POWER = 0.05, 0.8


def smallest_difference(differences: ArrayLike, comparisons: int = 1, power: float = POWER) -> float:
    """The mean difference that Wilcoxon's signed-rank test finds with a given probability.

    The normal approximation: ``(z(1 - level / 2) + z(power)) s / sqrt(n)``, times ``sqrt(pi / 3)``, the test's
    efficiency beside the t-test for normal differences. The level is 5 % over the comparisons, which is the first step
    of Holm's correction, its strictest.

    Args:
        differences: ``(n,)``, those found; only how they scatter counts. NaN is left out.
        comparisons: The number of comparisons that are corrected together.
        power: The probability, from 0 to 1.

    Returns:
        The difference, in the unit of the scores; NaN for fewer than two differences.

    Source:
        Lehmann, "Nonparametrics: Statistical Methods Based on Ranks", 1975, ch. 4.

    Example:
        >>> round(smallest_difference([0.1, -0.1, 0.2, 0.0] * 25), 4)
        0.0322
    """
    stats = needed("The power of a test", "scipy.stats")

    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return math.nan
    z = float(stats.norm.ppf(1 - LEVEL / comparisons / 2) + stats.norm.ppf(power))
    return z * float(values.std(ddof=1)) / math.sqrt(len(values)) * math.sqrt(math.pi / 3)
