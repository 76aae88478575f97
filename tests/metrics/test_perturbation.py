from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_astro.metrics.perturbation import aopc, area_under_curve, class_probability, log_odds, top_choice_is
from captum_astro.metrics.removal import ranks, removal_levels, removal_masks, removed_counts


def masks_by_loops(values: list[float], steps: int, *, most_important_first: bool) -> list[list[bool]]:
    """Pixels in order, least important first, the earlier of equals before the later; then take from one end."""
    order = sorted(range(len(values)), key=lambda pixel: (values[pixel], pixel))
    if most_important_first:
        order = order[::-1]
    masks = []
    for level in range(steps + 1):
        count = math.floor(Fraction(level * len(values), steps) + Fraction(1, 2))
        gone = set(order[:count])
        masks.append([pixel in gone for pixel in range(len(values))])
    return masks


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 0.25, 3.0]), min_size=1, max_size=40),
    st.integers(1, 50),
    st.booleans(),
)
def test_masks_equal_the_loops(values: list[float], steps: int, first: bool) -> None:
    maps = torch.tensor(values)[None, None]
    found = removal_masks(maps, steps, most_important_first=first)
    assert found[0, :, 0].tolist() == masks_by_loops(values, steps, most_important_first=first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int32])
def test_batches_channels_and_types(dtype: torch.dtype) -> None:
    maps = (torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 4).to(dtype)
    for first in (True, False):
        found = removal_masks(maps, 20, most_important_first=first)
        assert found.shape == (3, 21, 5, 7)
        assert torch.equal(removal_masks(maps[:, None], 20, most_important_first=first), found)
        assert found.flatten(2).sum(2).tolist() == [removed_counts(35, 20).tolist()] * 3
        for one in range(3):
            twin = masks_by_loops(maps[one].flatten().tolist(), 20, most_important_first=first)
            assert found[one].flatten(1).tolist() == twin
            assert torch.equal(removal_masks(maps[one : one + 1], 20, most_important_first=first)[0], found[one])
    noncontiguous = maps.transpose(1, 2)
    assert torch.equal(ranks(noncontiguous), ranks(noncontiguous.contiguous()))


def test_counts() -> None:
    assert removed_counts(4096)[:3].tolist() == [0, 205, 410]  # 204.8, 409.6
    assert removed_counts(50176)[[1, 10, 19, 20]].tolist() == [2509, 25088, 47667, 50176]
    assert removed_counts(10, 20).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10]
    assert removed_counts(3, 5).tolist() == [0, 1, 1, 2, 2, 3]


def test_levels_are_the_first_at_which_a_pixel_is_gone() -> None:
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(1))
    for levels, first in zip(removal_levels(maps, 20), (True, False), strict=True):
        assert torch.equal(levels, (~removal_masks(maps, 20, most_important_first=first)).sum(1).to(torch.int16))


def test_scores_by_hand() -> None:
    curve = torch.tensor([[1.0, 0.5, 0.25, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    assert area_under_curve(curve).tolist() == [(0.5 + 0.5 + 0.25) / 4, 1.0]
    probability = torch.tensor([[0.8, 0.4, 0.2, 0.1]], dtype=torch.float64)
    assert aopc(probability).item() == pytest.approx((0.4 + 0.6 + 0.7) / 3, abs=1e-15)
    assert log_odds(probability).item() == pytest.approx(-(1 + 2 + 3) * math.log(2) / 3, abs=1e-15)


def test_area_equals_numpy() -> None:
    curve = np.random.default_rng(0).random((50, 21))
    trapezoid = getattr(np, "trapezoid" if hasattr(np, "trapezoid") else "trapz")
    expected = trapezoid(curve, np.linspace(0, 1, 21), axis=1)
    np.testing.assert_allclose(area_under_curve(torch.from_numpy(curve)).numpy(), expected, rtol=0, atol=1e-14)


def test_scores_equal_the_loops() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 21, 10, generator=generator, dtype=torch.float64) * 20
    classes = torch.randint(10, (6,), generator=generator)
    probability = class_probability(logits, classes)
    hits = top_choice_is(logits, classes)
    for one in range(6):
        rows, wanted = logits[one].tolist(), int(classes[one])
        by_hand = [math.exp(row[wanted]) / math.fsum(math.exp(value) for value in row) for row in rows]
        assert probability[one].tolist() == pytest.approx(by_hand, rel=1e-12)
        drop = math.fsum(by_hand[0] - value for value in by_hand[1:]) / 20
        odds = math.fsum(math.log(value / by_hand[0]) for value in by_hand[1:]) / 20
        assert aopc(probability)[one].item() == pytest.approx(drop, abs=1e-13)
        assert log_odds(probability)[one].item() == pytest.approx(odds, rel=1e-12)
        assert hits[one].tolist() == [float(row.index(max(row)) == wanted) for row in rows]
    assert 0 < hits.mean() < 1


def test_small_probabilities_stay_above_zero() -> None:
    logits = torch.tensor([[[0.0, 0.0], [400.0, 0.0]]])
    odds = log_odds(class_probability(logits, torch.tensor([1])))
    assert odds.item() == pytest.approx(-400 + math.log(2), rel=1e-12)


def test_bad_input_is_named() -> None:
    maps = torch.rand(3, 4, 4)
    with pytest.raises(ValueError, match=r"sum or average the channels"):
        ranks(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"map\[None\]"):
        ranks(maps[0])
    with pytest.raises(ValueError, match="maps: real"):
        ranks(torch.zeros(1, 2, 2, dtype=torch.complex64))
    maps[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values at \[1\]"):
        removal_masks(maps, most_important_first=True)
    with pytest.raises(ValueError, match="steps from 1"):
        removed_counts(16, 0)
    with pytest.raises(ValueError, match="2 levels at least"):
        area_under_curve(torch.ones(3, 1))
    with pytest.raises(ValueError, match="class_probability"):
        log_odds(torch.tensor([[0.5, 0.0]]))
    with pytest.raises(ValueError, match=r"logits \(B, L, C\)"):
        top_choice_is(torch.rand(2, 3, 4), torch.tensor([1]))
    with pytest.raises(ValueError, match="from 0 to 3"):
        class_probability(torch.rand(1, 3, 4), torch.tensor([4]))
