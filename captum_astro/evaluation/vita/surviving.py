"""How much of a gain is left on the images whose class the modulated model keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 9999


def surviving(gain: ArrayLike, kept: ArrayLike) -> tuple[float, float, float]:
    """The mean gain on the images whose class is kept, as a share of the mean gain on all images.

    Args:
        gain: ``(n,)``, the gain of each image; NaN is left out.
        kept: ``(n,)``, whether its class is kept.

    Returns:
        The share with its 95 % bootstrap interval, ``(share, low, high)``. NaN if no class is kept, or the interval of
        the gain on all images reaches down to 0: a share of what may be nothing can have any size.

    Example:
        >>> surviving([0.1, 0.1, 0.2, 0.2], [True, True, True, True])
        (1.0, 1.0, 1.0)
        >>> round(surviving([0.1, 0.1, 0.3, 0.3], [True, True, False, False])[0], 3)
        0.5
    """
    values, held = np.asarray(gain, dtype=np.float64), np.asarray(kept, dtype=bool)
    values, held = values[~np.isnan(values)], held[~np.isnan(values)]
    if not held.any():
        return np.nan, np.nan, np.nan
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    if np.quantile(values[drawn].mean(1), 0.025) <= 0:
        return np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore", divide="ignore"):  # a sample without a kept class has no share
        shares = _share(values[drawn], held[drawn])
    low, high = np.quantile(shares[np.isfinite(shares)], [0.025, 0.975])
    return float(_share(values, held)), float(low), float(high)


def _share(values: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.where(held, values, 0).sum(-1) / held.sum(-1) / values.mean(-1)
    return mean
