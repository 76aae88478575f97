"""How reliable a ranking of methods is: their ranks over bootstrap samples.

Sources: Hall and Miller, "Using the bootstrap to quantify the authority of an empirical ranking", Annals of Statistics
37(6B), 2009, for bootstrapped ranks; Kendall, "A new measure of rank correlation", Biometrika 30, 1938, for tau, and
its form b of 1945, which handles ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

_DRAWN_AT_ONCE = 2**22


@dataclass(frozen=True)
class RankStability:
    """The ranks of m methods, 1 is the best.

    Attributes:
        n: Number of samples used.
        left_out: Number of samples left out because one of their values is NaN.
        places: ``(m,)``, over all samples; tied methods share the mean of their ranks.
        mean_places: ``(m,)``, the mean over the bootstrap samples.
        low: ``(m,)``, the 2.5 % percentile of the ranks over the bootstrap samples, itself one of them.
        high: ``(m,)``, the 97.5 % percentile.
        shares: ``(m, m)``, the fraction of bootstrap samples in which a method (row) has a rank (column); tied methods
            share their ranks in equal parts. Rows and columns sum to 1.
        agreement: Mean Kendall's tau b between the ranking of a bootstrap sample and that of all samples; 1 if every
            bootstrap sample has the same ranking, NaN if the methods do not differ at all.
    """

    n: int
    left_out: int
    places: NDArray[np.float64]
    mean_places: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shares: NDArray[np.float64]
    agreement: float

    @property
    def first(self) -> NDArray[np.float64]:
        """``(m,)``, the fraction of bootstrap samples in which a method is the best."""
        return self.shares[:, 0]


def rank_stability(
    scores: ArrayLike | torch.Tensor, samples: int = 2000, seed: int = 0, *, larger_is_better: bool = True
) -> RankStability:
    """Rank methods by their mean score, and again in every bootstrap sample of the images.

    All methods are ranked on the same images: an image with a NaN for any of them is left out and counted.

    Args:
        scores: ``(n, m)``, one row per image, one column per method.
        samples: The number of bootstrap samples.
        seed: Random seed. The same seed gives the same result.
        larger_is_better: Whether rank 1 has the largest mean, or the smallest.

    Returns:
        The ranks.

    Raises:
        ValueError: If the scores are not a table, a value is infinite, every row has a NaN, or no sample is drawn.

    Example:
        >>> found = rank_stability([[0.9, 0.1, 0.2], [0.8, 0.3, 0.2], [0.7, 0.1, 0.1]])
        >>> found.places.tolist(), found.first.tolist()
        ([1.0, 2.5, 2.5], [1.0, 0.0, 0.0])
    """
    table = scores.detach().double().cpu().numpy() if isinstance(scores, torch.Tensor) else scores
    table = np.asarray(table, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise ValueError(f"scores: a row for each sample and a column for each method are needed, not {table.shape}.")
    if np.isinf(table).any():
        raise ValueError("scores: infinite values; set them to NaN to have their rows left out.")
    kept = table[~np.isnan(table).any(1)]
    if not len(kept):
        raise ValueError(f"scores: no row without NaN among {len(table)}; there is nothing to rank by.")
    means, left_out = resampled_sums(kept, samples, seed) / len(kept), len(table) - len(kept)
    return stability(means, kept.mean(0), n=len(kept), left_out=left_out, larger_is_better=larger_is_better)


def resampled_sums(values: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """Sums over bootstrap samples of the rows, with the same rows for all columns.

    Args:
        values: ``(n, q)``, without NaN.
        samples: The number of bootstrap samples, each of n rows.
        seed: Random seed; the drawn rows depend only on n and the seed.

    Returns:
        ``(samples, q)``.

    Raises:
        ValueError: If there is no row, or no sample is drawn.

    Example:
        >>> resampled_sums(np.ones((5, 2)), 3, 0).tolist()
        [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]
    """
    n = len(values)
    if n == 0 or samples < 1:
        raise ValueError(f"{n} rows, {samples} bootstrap samples: at least 1 of both; 2000 samples are usual.")
    rng = np.random.default_rng(seed)
    sums = np.empty((samples, values.shape[1]))
    step = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums[start : start + rows] = times.astype(np.float64) @ values
    return sums


def stability(
    draws: NDArray[np.float64], whole: NDArray[np.float64], *, n: int, left_out: int = 0, larger_is_better: bool = True
) -> RankStability:
    """Ranks from precomputed statistics, such as pooled ones.

    Values that differ by less than one part in 10^12 are tied: the order of summation alone causes such differences.

    Args:
        draws: ``(samples, m)``, each method's statistic in each bootstrap sample.
        whole: ``(m,)``, over all samples.
        n: Number of samples used.
        left_out: Number of samples left out.
        larger_is_better: Whether rank 1 has the largest statistic, or the smallest.

    Example:
        >>> stability(np.array([[0.1, 0.2], [0.3, 0.1]]), np.array([0.2, 0.15]), n=9).shares.tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    sign = 1.0 if larger_is_better else -1.0
    places = ranks(whole[None], larger_is_better=larger_is_better)[0]
    better, tied = _beaten(sign * draws)
    own = _places(better, tied)
    columns = np.arange(draws.shape[1])
    held = (columns >= better[..., None]) & (columns < (better + tied)[..., None])
    return RankStability(
        n=n,
        left_out=left_out,
        places=places,
        mean_places=own.mean(0),
        low=np.percentile(own, 2.5, axis=0, method="inverted_cdf"),
        high=np.percentile(own, 97.5, axis=0, method="inverted_cdf"),
        shares=(held / tied[..., None]).mean(0),
        agreement=_agreement(own, places),
    )


def ranks(values: NDArray[np.float64], *, larger_is_better: bool = True) -> NDArray[np.float64]:
    """The ranks of m methods in each of several tables of values; tied methods share the mean of their ranks.

    Args:
        values: ``(samples, m)``.
        larger_is_better: Whether rank 1 has the largest value, or the smallest.

    Returns:
        ``(samples, m)``.

    Example:
        >>> ranks(np.array([[0.2, 0.5, 0.2]])).tolist()
        [[2.5, 1.0, 2.5]]
    """
    return _places(*_beaten(values if larger_is_better else -values))


def _beaten(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each value in its row: how many are larger, and how many are equal, including itself."""
    room = 1e-12 * np.abs(values).max(1)[:, None, None]
    gap = values[:, None, :] - values[:, :, None]
    return (gap > room).sum(2), (np.abs(gap) <= room).sum(2)


def _places(better: NDArray[np.int64], tied: NDArray[np.int64]) -> NDArray[np.float64]:
    places: NDArray[np.float64] = better + (tied + 1) / 2
    return places


def _agreement(places: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    first, second = np.triu_indices(len(whole), 1)
    a = np.sign(places[:, first] - places[:, second])
    b = np.sign(whole[first] - whole[second])
    norm = np.sqrt((a * a).sum(1) * (b * b).sum())
    tau = np.divide((a * b).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0)
    return float(np.nanmean(tau)) if np.isfinite(tau).any() else float("nan")
