"""The mean of a few values, such as those of runs with different seeds: interval and test.

Source: Student, "The probable error of a mean", Biometrika 6(1), 1908. A bootstrap of three values cannot leave their
range, which holds the true mean in three cases of four; this interval takes the values for normal instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from captum_astro.extras import needed


@dataclass(frozen=True)
class Mean:
    """A mean, how sure it is, and whether it differs from 0.

    Attributes:
        value: The mean.
        low: Lower end of its confidence interval; NaN for a single value.
        high: Upper end.
        p_value: Student's t-test of the mean against 0, two-sided; NaN for a single value.
    """

    value: float
    low: float
    high: float
    p_value: float


def t_mean(values: ArrayLike, level: float = 0.95) -> Mean:
    """The mean of a sample, with Student's interval and test. For pairs, pass the differences.

    Args:
        values: ``(n,)``, at least one value.
        level: Confidence level, between 0 and 1.

    Returns:
        The mean. If all values are equal, the interval is that value, and p is 0, or 1 if they are 0.

    Raises:
        ValueError: If there is no value, or one is NaN or infinite, or the level is out of range.

    Example:
        >>> found = t_mean([0.51, 0.53, 0.52])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.52, 0.495, 0.545)
    """
    stats = needed("Student's t-test", "scipy.stats")

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError("values: (n,), at least one, and none NaN or infinite; leave those out first.")
    if not 0 < level < 1:
        raise ValueError(f"level: between 0 and 1, not {level!r}; 0.95 is usual.")
    mean, n = float(sample.mean()), len(sample)
    if n == 1:
        return Mean(mean, math.nan, math.nan, math.nan)
    if (sample == sample[0]).all():
        value = float(sample[0])
        return Mean(value, value, value, float(value == 0))
    error = float(sample.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Mean(mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, n - 1)))
