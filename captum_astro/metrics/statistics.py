"""Comparing two methods on the same images: bootstrap confidence intervals, paired tests, multiple-test correction.

Sources: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945; Kerby, "The simple
difference formula", Comprehensive Psychology 3, 2014, for the matched-pairs rank-biserial correlation; Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979; Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993, ch. 13, for percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from captum_astro.extras import needed
from captum_astro.metrics.signed_rank import signed_rank_p

Values = ArrayLike | torch.Tensor
_DRAWN_AT_ONCE = 2**20


@dataclass(frozen=True)
class PairedComparison:
    """Two methods on the same samples.

    Attributes:
        n: Pairs compared.
        left_out: Pairs left out because one of their values is NaN.
        mean_a: Mean of the first method over the compared pairs.
        mean_b: Mean of the second.
        difference: Mean of ``a - b``.
        interval: 95 % bootstrap confidence interval of the difference, ``(low, high)``.
        p_value: Wilcoxon's signed-rank test, two-sided.
        effect_size: Matched-pairs rank-biserial correlation: the share of the rank sum of ``|a - b|`` where a is larger
            minus the share where b is larger; from -1 to 1.
        p_holm: The p-value after Holm's correction over all comparisons made together; None for a single one.
    """

    n: int
    left_out: int
    mean_a: float
    mean_b: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    effect_size: float
    p_holm: float | None = None


def holm(p_values: Values) -> NDArray[np.float64]:
    """Holm's step-down correction: p-values that can be compared with one level, however many tests there are.

    The i-th smallest of m is multiplied by ``m - i + 1``; none is smaller than the one before it, or exceeds 1.

    Args:
        p_values: ``(m,)``, from 0 to 1.

    Returns:
        ``(m,)``, in the order given.

    Raises:
        ValueError: If a value is not from 0 to 1, or NaN.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
        [0.03, 0.06, 0.06]
    """
    p = _vector("p_values", p_values)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p_values: from 0 to 1, without NaN; leave out the tests that gave none.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def bootstrap_interval(
    values: Values,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 9999,
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a statistic, from ``scipy.stats.bootstrap``.

    Percentiles, not BCa: they need no jackknife, whose cost grows with the square of the number of values, and they
    never leave the range of the statistic.

    Args:
        values: ``(n,)``, at least one value.
        statistic: Maps a sample to a number; called with ``axis=`` if it accepts that, as NumPy's functions do.
        level: Confidence level, between 0 and 1.
        seed: Random seed. The same seed gives the same interval.
        resamples: The number of bootstrap samples.

    Returns:
        ``(low, high)``. Both are the statistic itself if all values are equal, or there is only one.

    Raises:
        ValueError: If there is no value, or one is NaN or infinite, or the level or the resamples are out of range.

    Example:
        >>> low, high = bootstrap_interval([0.2, 0.4, 0.3, 0.5, 0.6])
        >>> 0.2 < low < 0.4 < high < 0.6
        True
    """
    stats = needed("A bootstrap interval", "scipy.stats")

    sample = _vector("values", values)
    if len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError("values: at least one, and none NaN or infinite; leave those out first.")
    if not 0 < level < 1:
        raise ValueError(f"level: between 0 and 1, not {level!r}; 0.95 is usual.")
    if resamples < 1:
        raise ValueError(f"resamples: at least 1, not {resamples!r}; 9999 is usual.")
    if (sample == sample[0]).all():
        value = float(statistic(sample))
        return value, value
    interval = stats.bootstrap(
        (sample,),
        statistic,
        n_resamples=resamples,
        batch=max(1, _DRAWN_AT_ONCE // len(sample)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def compare_paired(a: Values, b: Values, seed: int = 0, resamples: int = 9999) -> PairedComparison:
    """Compare two methods that were scored on the same samples.

    Pairs with a NaN are left out and counted. In the test and the effect size pairs without a difference are dropped,
    following Wilcoxon; if no pair differs, p is 1 and the effect 0.

    Args:
        a: ``(n,)``, the first method.
        b: ``(n,)``, the second, in the same order.
        seed: Random seed of the bootstrap.
        resamples: The number of bootstrap samples; with 0 the interval is NaN.

    Returns:
        The comparison.

    Raises:
        ValueError: If the lengths differ, a value is infinite, or no pair is left.

    Example:
        >>> found = compare_paired([0.5, 0.6, 0.9, 0.4], [0.4, 0.3, 0.5, 0.6])
        >>> found.n, round(found.difference, 3), found.p_value, found.effect_size
        (4, 0.15, 0.375, 0.6)
    """
    stats = needed("A paired comparison", "scipy.stats")

    first, second = _vector("a", a), _vector("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"a and b hold {len(first)} and {len(second)} values; both need the same samples in one order."
        )
    if np.isinf(first).any() or np.isinf(second).any():
        raise ValueError("a, b: infinite values; set them to NaN to have their pairs left out.")
    kept = ~(np.isnan(first) | np.isnan(second))
    if not kept.any():
        raise ValueError(f"a, b: no pair without NaN among {len(kept)}; there is nothing to compare.")
    first, second = first[kept], second[kept]
    difference = first - second
    changed = difference[difference != 0]
    p_value, effect = 1.0, 0.0
    if len(changed):
        ranks = stats.rankdata(np.abs(changed))
        effect = float((np.sign(changed) * ranks).sum() / ranks.sum())
        p_value = signed_rank_p(changed)
    return PairedComparison(
        n=len(difference),
        left_out=int((~kept).sum()),
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=float(difference.mean()),
        interval=bootstrap_interval(difference, seed=seed, resamples=resamples) if resamples else (np.nan, np.nan),
        p_value=p_value,
        effect_size=effect,
    )


def compare_many(
    pairs: Mapping[str, tuple[Values, Values]], seed: int = 0, resamples: int = 9999
) -> dict[str, PairedComparison]:
    """Compare many pairs of methods, with Holm's correction over all of them.

    Args:
        pairs: For each name ``(a, b)``, as in `compare_paired`.
        seed: Random seed of each bootstrap.
        resamples: As for `compare_paired`.

    Returns:
        A comparison for each name, in order, with ``p_holm`` set.

    Raises:
        ValueError: As `compare_paired`; the message names the pair.

    Example:
        >>> table = compare_many({"dice": ([0.5, 0.6, 0.9], [0.4, 0.3, 0.5]), "ssim": ([0.1, 0.2], [0.1, 0.2])})
        >>> {name: (found.p_value, found.p_holm) for name, found in table.items()}
        {'dice': (0.25, 0.5), 'ssim': (1.0, 1.0)}
    """
    found = {name: _compare_named(name, a, b, seed, resamples) for name, (a, b) in pairs.items()}
    corrected = holm([each.p_value for each in found.values()])
    return {name: replace(each, p_holm=float(p)) for (name, each), p in zip(found.items(), corrected, strict=True)}


def _compare_named(name: str, a: Values, b: Values, seed: int, resamples: int) -> PairedComparison:
    try:
        return compare_paired(a, b, seed, resamples)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _vector(name: str, values: Values) -> NDArray[np.float64]:
    array = values.detach().double().cpu().numpy() if isinstance(values, torch.Tensor) else values
    vector = np.asarray(array, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name}: one number a sample, (n,), is needed, not {vector.shape}; flatten or average first.")
    return vector
