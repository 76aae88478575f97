from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from captum_astro.metrics import HUMAN_CEILING, alignment_score, dice, iou, spearman, ssim

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ALL: list[Score] = [spearman, dice, iou, ssim]


def _maps(batch: int, height: int, width: int, levels: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of maps that agree in part; with a number of distinct values, or all different."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(batch, height, width, generator=generator, dtype=torch.float64)
    b = a + torch.randn(batch, height, width, generator=generator, dtype=torch.float64)
    return ((a * levels / 4).round(), (b * levels / 4).round()) if levels else (a, b)


def _ranks(values: list[float]) -> list[float]:
    """One more than the values below, and half of the others that are equal."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    x, y = _ranks(a.flatten().tolist()), _ranks(b.flatten().tolist())
    mean = (len(x) + 1) / 2
    top = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    square = sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y)
    return top / square**0.5 if square else float("nan")


def _top(values: torch.Tensor, percentile: float) -> set[int]:
    flat = values.flatten().tolist()
    ordered = sorted(flat)
    position = percentile / 100 * (len(flat) - 1)
    low = int(position)
    high = min(low + 1, len(flat) - 1)
    threshold = ordered[low] + (position - low) * (ordered[high] - ordered[low])
    return {i for i, value in enumerate(flat) if value > threshold}


def _ssim(a: torch.Tensor, b: torch.Tensor, window: int) -> float:
    """The mean over all windows of Eq. 13, every window on its own."""
    x, y = ((m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else m * 0 for m in (a, b))
    found = []
    for i, j in itertools.product(range(a.shape[0] - window + 1), range(a.shape[1] - window + 1)):
        p, q = (m[i : i + window, j : j + window].flatten().tolist() for m in (x, y))
        n = len(p)
        mp, mq = sum(p) / n, sum(q) / n
        vp, vq = sum((v - mp) ** 2 for v in p) / (n - 1), sum((v - mq) ** 2 for v in q) / (n - 1)
        vpq = sum((v - mp) * (w - mq) for v, w in zip(p, q, strict=True)) / (n - 1)
        found.append((2 * mp * mq + 1e-4) * (2 * vpq + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return sum(found) / len(found)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(2, 6), st.sampled_from([0, 1, 4, 10]), st.integers(0, 99),
    st.sampled_from([0.0, 33.3, 50.0, 90.0, 99.9]),
)  # fmt: skip
def test_ranks_and_overlaps_equal_their_definitions(
    batch: int, height: int, width: int, levels: int, seed: int, percentile: float
) -> None:
    a, b = _maps(batch, height, width, levels, seed)
    expected = torch.tensor([_spearman(x, y) for x, y in zip(a, b, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(spearman(a, b), expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    sets = [(_top(x, percentile), _top(y, percentile)) for x, y in zip(a, b, strict=True)]
    overlap = [2 * len(p & q) / (len(p) + len(q)) if p or q else 0.0 for p, q in sets]
    union = [len(p & q) / len(p | q) if p or q else 0.0 for p, q in sets]
    assert dice(a, b, percentile).tolist() == pytest.approx(overlap, abs=1e-15)
    assert iou(a, b, percentile).tolist() == pytest.approx(union, abs=1e-15)


@settings(max_examples=15, deadline=None)
@given(st.integers(7, 10), st.integers(7, 11), st.sampled_from([3, 5, 7]), st.sampled_from([0, 4]), st.integers(0, 99))
def test_ssim_equals_its_definition(height: int, width: int, window: int, levels: int, seed: int) -> None:
    a, b = _maps(2, height, width, levels, seed)
    expected = torch.tensor([_ssim(x, y, window) for x, y in zip(a, b, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(ssim(a, b, window), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [0, 3, 255])
def test_agrees_with_the_libraries_at_full_size(levels: int) -> None:
    a, b = _maps(3, 224, 224, levels)
    rho = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), rho, rtol=0, atol=1e-12)
    for percentile in (50.0, 90.0, 97.3):
        tops = [[m > np.percentile(m, percentile) for m in pair] for pair in zip(a.numpy(), b.numpy(), strict=True)]
        published = [2 * np.sum(p & q) / (np.sum(p) + np.sum(q) + 1e-9) for p, q in tops]
        np.testing.assert_allclose(dice(a, b, percentile), published, rtol=0, atol=1e-8)
        published = [np.sum(p & q) / (np.sum(p | q) + 1e-9) for p, q in tops]
        np.testing.assert_allclose(iou(a, b, percentile), published, rtol=0, atol=1e-8)
    units = [[(m - m.min()) / (m.max() - m.min()) for m in pair] for pair in zip(a.numpy(), b.numpy(), strict=True)]
    for window in (7, 11):
        expected = [structural_similarity(x, y, win_size=window, data_range=1.0) for x, y in units]
        np.testing.assert_allclose(ssim(a, b, window), expected, rtol=0, atol=1e-10)


def test_by_hand() -> None:
    a = torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    b = torch.tensor([[[1.0, 2, 2], [9, 5, 5]]])
    # ranks 1 2 3 4 5 6 and 1 2.5 2.5 6 4.5 4.5
    assert spearman(a, b).item() == pytest.approx(13.5 / (17.5 * 16.5) ** 0.5, abs=1e-15)
    # above 3.5: the last three; above 3.5 again: the same three
    assert dice(a, b, 50).item() == iou(a, b, 50).item() == 1
    # at 60: above 4, the last two; above 5, the 9 alone
    assert dice(a, b, 60).item() == iou(a, b, 60).item() == 0
    # at 50 of the reverse, above 3.5: the first three and the last three
    assert dice(a, a.flip(1, 2), 50).item() == 0
    x = torch.zeros(1, 3, 3)
    x[0, 1, 1] = 1
    # one window: means 1/9 and 8/9, variances 1/9 each, covariance -1/9
    expected = (16 / 81 + 1e-4) / (65 / 81 + 1e-4) * (-2 / 9 + 9e-4) / (2 / 9 + 9e-4)
    assert ssim(x, 1 - x, 3).item() == pytest.approx(expected, abs=1e-14)


def test_constant_and_flat_maps() -> None:
    _, b = _maps(1, 8, 8)
    constant = torch.full_like(b, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(spearmanr(constant.flatten(), b.flatten()).statistic)
    assert spearman(constant, b).isnan().all()
    assert spearman(constant, constant).isnan().all()
    assert dice(constant, b).item() == iou(constant, b).item() == 0
    assert dice(constant, constant).item() == iou(constant, constant).item() == 0
    assert ssim(constant, constant).item() == 1
    assert ssim(constant, b).item() == ssim(torch.zeros_like(b), b).item()
    flat = torch.zeros(1, 10, 10)
    flat[0, :5] = 1
    assert dice(flat, flat).item() == 0
    assert dice(flat, flat, percentile=40).item() == 1


@pytest.mark.parametrize("score", ALL)
def test_each_sample_separately(score: Score) -> None:
    a, b = _maps(5, 17, 12)
    together = score(a, b)
    assert together.shape == (5,)
    assert together.dtype == torch.float64
    for size in (1, 2, 3):
        parts = torch.cat([score(a[i : i + size], b[i : i + size]) for i in range(0, 5, size)])
        torch.testing.assert_close(parts, together, rtol=0, atol=0 if score is not ssim else 1e-15)
    assert score(a[:0], b[:0]).shape == (0,)


@pytest.mark.parametrize("score", ALL)
def test_forms_of_input(score: Score) -> None:
    a, b = _maps(2, 9, 11)
    expected = score(a, b)
    torch.testing.assert_close(score(a[:, None], b), expected)
    torch.testing.assert_close(score(a[:, None], b[:, None]), expected)
    torch.testing.assert_close(score(b, a), expected)
    torch.testing.assert_close(score(a.mT, b.mT), expected)
    torch.testing.assert_close(score(torch.stack([b, a, b], -1)[..., 1], b), expected)
    torch.testing.assert_close(score(5 * a - 2, 0.1 * b + 7), expected)
    torch.testing.assert_close(score(a.float(), b.float()), expected, rtol=0, atol=1e-6)
    assert score(a.bfloat16(), b > 0).isfinite().all()
    assert score(a, a).tolist() == pytest.approx([1, 1], abs=1e-14)


@pytest.mark.parametrize("score", ALL)
def test_bad_input_is_named(score: Score) -> None:
    a, b = _maps(3, 8, 8)
    with pytest.raises(ValueError, match=r"maps \(3, 8, 8\) and human \(2, 8, 8\) differ.*interpolate"):
        score(a, b[:2])
    with pytest.raises(ValueError, match=r"maps: \(B, H, W\).*not \(8, 8\)"):
        score(a[0], b[0])
    with pytest.raises(ValueError, match=r"human: .*not \(3, 3, 8, 8\); sum or average"):
        score(a, b[:, None].expand(3, 3, 8, 8))
    with pytest.raises(ValueError, match=r"human: .*not \(3, 0, 8\)"):
        score(a, b[:, :0])
    with pytest.raises(ValueError, match="maps: real values"):
        score(a.cfloat(), b)
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoilt = b.clone()
        spoilt[1, 0, 0] = bad
        with pytest.raises(ValueError, match=r"human: NaN or infinite values at \[1\].*leave"):
            score(a, spoilt)


def test_bad_options_are_named() -> None:
    a, b = _maps(1, 8, 9)
    for percentile in (-1.0, 100.0, float("nan")):
        with pytest.raises(ValueError, match="percentile must be from 0 to below 100"):
            dice(a, b, percentile)
        with pytest.raises(ValueError, match="percentile"):
            iou(a, b, percentile)
    for window in (1, 4, 7.0, True):
        with pytest.raises(ValueError, match="window: an odd number"):
            ssim(a, b, window)
    with pytest.raises(ValueError, match=r"window: 9 pixels do not fit into maps of 8 x 9"):
        ssim(a, b, 9)


def test_share_of_the_ceiling() -> None:
    scores = torch.tensor([HUMAN_CEILING, 0, -0.3], dtype=torch.float64)
    assert alignment_score(scores).tolist() == pytest.approx([1, 0, -0.3 / 0.65753])
    assert alignment_score(scores, ceiling=0.5)[0].item() == pytest.approx(2 * HUMAN_CEILING)
    for ceiling in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ceiling"):
            alignment_score(scores, ceiling)
