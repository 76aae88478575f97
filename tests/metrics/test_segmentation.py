from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, jaccard_score

from captum_astro.metrics.segmentation import (
    SegmentationCounts,
    counts,
    foreground,
    mean_iou,
    pixel_accuracy,
    pooled_mean_iou,
    pooled_pixel_accuracy,
)
from captum_astro.metrics.segmentation_ap import average_precision

SCORES = [pixel_accuracy, mean_iou, average_precision]


def drawn(batch: int, height: int, width: int, levels: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps, with a number of distinct values or all different, and masks of 1, 0 and -1 that agree in part."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, height, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, height, width, generator=generator, dtype=torch.float64)
    masks = (maps + noise > 0.3).long()
    masks[torch.rand(batch, height, width, generator=generator) < 0.2] = -1
    return ((maps * levels / 4).round() if levels else maps), masks


def _threshold(m: list[float]) -> list[int]:
    mean = math.fsum(m) / len(m)
    return [int(value > mean) if max(m) > min(m) else 0 for value in m]


def _average_precision(m: list[float], truth: list[int]) -> float:
    """Every score is tried as a threshold, from the largest: the recall gained times the precision there."""
    low, high = min(m), max(m)
    unit = [(v - low) / (high - low) if high > low else 0.5 for v in m]
    known = [(u, t) for u, t in zip(unit, truth, strict=True) if t >= 0]
    scored = [(1 - u, t == 0) for u, t in known] + [(u, t == 1) for u, t in known]
    found, before = 0.0, 0
    for threshold in sorted({score for score, _ in scored}, reverse=True):
        kept = [right for score, right in scored if score >= threshold]
        found += (sum(kept) - before) / len(known) * sum(kept) / len(kept)
        before = sum(kept)
    return found


def _twin(m: torch.Tensor, k: torch.Tensor) -> list[float]:
    """Pixel accuracy, mean IoU and average precision of one image."""
    values, truth = m.flatten().tolist(), k.flatten().tolist()
    if all(t < 0 for t in truth):
        return [math.nan] * 3
    pairs = [(p, t) for p, t in zip(_threshold(values), truth, strict=True) if t >= 0]
    ious = []
    for c in (0, 1):
        union = sum(c in (p, t) for p, t in pairs)
        ious.append(sum(p == c == t for p, t in pairs) / union if union else math.nan)
    accuracy = sum(p == t for p, t in pairs) / len(pairs)
    return [accuracy, sum(ious) / 2, _average_precision(values, truth)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 3, 10]), st.integers(0, 999)
)  # fmt: skip
def test_scores_equal_their_definitions(batch: int, height: int, width: int, levels: int, seed: int) -> None:
    maps, masks = drawn(batch, height, width, levels, seed)
    expected = np.array([_twin(m, k) for m, k in zip(maps, masks, strict=True)])
    for score, column in zip(SCORES, expected.T, strict=True):
        np.testing.assert_allclose(score(maps, masks), column, rtol=0, atol=1e-13)
    assert foreground(maps).flatten(1).int().tolist() == [_threshold(m.flatten().tolist()) for m in maps]


@pytest.mark.parametrize("levels", [0, 2, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scikit_learn_agrees(levels: int, dtype: torch.dtype) -> None:
    maps, masks = drawn(4, 56, 48, levels, seed=levels)
    maps = maps.to(dtype)
    everything = []
    accuracy, iou, precision = (score(maps, masks) for score in SCORES)
    for i, (m, k) in enumerate(zip(maps.double().numpy(), masks.numpy(), strict=True)):
        known = k >= 0
        truth, found = k[known], (m > m.mean())[known].astype(int)
        assert accuracy[i].item() == pytest.approx(accuracy_score(truth, found), abs=1e-14)
        assert iou[i].item() == pytest.approx(jaccard_score(truth, found, average="macro"), abs=1e-14)
        unit = (m - m.min()) / (m.max() - m.min())
        one_hot = np.stack([truth == 0, truth == 1])
        scores = np.stack([(1 - unit)[known], unit[known]])
        sklearn = average_precision_score(one_hot.flatten(), scores.flatten())
        assert precision[i].item() == pytest.approx(sklearn, abs=1e-13)
        everything.append((truth, found))
    truth, found = (np.concatenate(parts) for parts in zip(*everything, strict=True))
    counted = counts(maps, masks)
    assert pooled_pixel_accuracy(counted) == pytest.approx(accuracy_score(truth, found), abs=1e-14)
    assert pooled_mean_iou(counted) == pytest.approx(jaccard_score(truth, found, average="macro"), abs=1e-14)
    assert pooled_pixel_accuracy(counted) != pytest.approx(accuracy.mean().item(), abs=1e-6)


def test_by_hand() -> None:
    maps = torch.tensor([[[0.0, 4.0], [8.0, 4.0]], [[3.0, 1.0], [1.0, 1.0]]])
    masks = torch.tensor([[[0, 1], [1, -1]], [[0, 0], [1, 0]]])
    assert foreground(maps).tolist() == [[[False, False], [True, False]], [[True, False], [False, False]]]
    counted = counts(maps, masks)
    assert counted.correct.tolist() == [2, 2]
    assert counted.labelled.tolist() == [3, 4]
    assert counted.intersection.tolist() == [[1, 1], [2, 0]]
    assert counted.union.tolist() == [[2, 2], [4, 2]]
    assert pixel_accuracy(maps, masks).tolist() == pytest.approx([2 / 3, 1 / 2])
    assert mean_iou(maps, masks).tolist() == [1 / 2, 1 / 4]
    assert pooled_pixel_accuracy(counted) == pytest.approx(4 / 7)
    assert pooled_mean_iou(counted) == pytest.approx((3 / 6 + 1 / 4) / 2)
    # known scores of the first: background 1 1/2 0, object 0 1/2 1, right: 1 (bg), 1/2 and 1 (obj); at 1: 2 of 2
    # right; at 1/2: 3 of 4. Of the second: background 0 1 1 1, object 1 0 0 0; at 1: 2 of 4; at 0: 4 of 8.
    assert average_precision(maps, masks).tolist() == pytest.approx([2 / 3 + 1 / 3 * 3 / 4, 1 / 2])


def test_a_perfect_map_and_its_reverse() -> None:
    masks = torch.tensor([[[0, 0, 1], [-1, 1, -1]]]).int()
    for score in SCORES:
        assert score((masks == 1).float(), masks).item() == 1
        assert score(-(masks == 1).float(), masks).item() <= 0.5


def test_degenerate_maps_and_masks() -> None:
    maps, masks = drawn(7, 5, 9)
    maps[0], maps[1, 2, 3], maps[2, 0, 0] = 0.1, torch.nan, torch.inf
    masks[3], masks[4], masks[5] = -1, 0, 1
    accuracy, iou, precision = (score(maps, masks) for score in SCORES)
    for scores in (accuracy, iou, precision):
        assert scores.isnan().tolist() == [False, True, True, True, False, False, False]
    share = (masks[0] == 0).sum() / (masks[0] >= 0).sum()
    assert accuracy[0].item() == pytest.approx(share.item())  # a constant map: all is background
    assert precision[0].item() == 0.5
    assert not foreground(maps)[:3].any()
    assert mean_iou(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).isnan().all()  # no object anywhere
    assert average_precision(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0.5
    counted = counts(maps, masks)
    assert counted.labelled.isnan().tolist() == [False, True, True, False, False, False, False]
    assert counted.labelled[3] == 0
    assert math.isnan(pooled_pixel_accuracy(counted))
    assert math.isnan(pooled_mean_iou(counted))
    for value in (0.1, 1 / 3, 1e-30, -7e30):
        for size in ((224, 224), (7, 9), (10, 3)):
            assert not foreground(torch.full((2, *size), value, dtype=torch.float64)).any()


@pytest.mark.parametrize("score", SCORES)
def test_each_image_separately(score: object) -> None:
    assert callable(score)
    maps, masks = drawn(5, 224, 64)
    together = score(maps, masks)
    assert together.shape == (5,)
    assert together.dtype == torch.float64
    for size in (1, 2, 3):
        parts = torch.cat([score(maps[i : i + size], masks[i : i + size]) for i in range(0, 5, size)])
        assert torch.equal(parts, together)
    assert score(maps[:0], masks[:0]).shape == (0,)
    exact = maps.float().double()
    same = [(exact[:, None], masks), (exact, masks[:, None]), (exact.float(), masks.to(torch.int8)),
            (exact.mT.contiguous().mT, masks.double()), (exact.clone().requires_grad_(), masks)]  # fmt: skip
    for m, k in same:
        assert torch.equal(score(m, k), score(exact, masks))
    torch.testing.assert_close(score(5 * maps - 2, masks), together, rtol=0, atol=1e-12)
    assert torch.equal(score(maps, masks == 1), score(maps, (masks == 1).int()))


@pytest.mark.parametrize("score", [*SCORES, counts])
def test_bad_input_is_named(score: object) -> None:
    assert callable(score)
    maps, masks = drawn(3, 4, 5)
    with pytest.raises(ValueError, match=r"maps \(3, 4, 5\) and masks \(2, 4, 5\) differ in shape; bring"):
        score(maps, masks[:2])
    with pytest.raises(ValueError, match=r"maps: \(B, H, W\).*not \(4, 5\)"):
        score(maps[0], masks[0])
    with pytest.raises(ValueError, match=r"maps: .*not \(3, 3, 4, 5\); sum or average"):
        score(maps[:, None].expand(3, 3, 4, 5), masks)
    with pytest.raises(ValueError, match=r"masks: .*not \(3, 0, 5\)"):
        score(maps, masks[:, :0])
    with pytest.raises(ValueError, match="maps: real values"):
        score(maps.cfloat(), masks)
    for bad in (2.0, 0.5, float("nan"), -2.0):
        spoilt = masks.double()
        spoilt[1, 0, 0] = bad
        with pytest.raises(ValueError, match=rf"masks: 1 \(object\).*not {bad}"):
            score(maps, spoilt)


def test_counts_as_a_table_and_back() -> None:
    counted = counts(torch.rand(3, 4, 5), torch.randint(-1, 2, (3, 4, 5)))
    table = counted.table()
    assert table.shape == (3, 6)
    assert all(torch.equal(a, b) for a, b in zip(SegmentationCounts.from_table(table), counted, strict=True))
    stacked = SegmentationCounts.from_table(table.expand(2, 3, 6))
    torch.testing.assert_close(stacked.mean_iou(), counted.mean_iou().expand(2, 3), equal_nan=True)
