from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_astro.metrics.localisation import energy_inside, object_share, pointing_game
from tests.metrics.test_segmentation import drawn

SCORES = [pointing_game, energy_inside]


def _twin(m: torch.Tensor, k: torch.Tensor) -> tuple[float, float, float]:
    """Pointing game, energy inside and chance of one image."""
    known = [(v, t) for v, t in zip(m.flatten().tolist(), k.flatten().tolist(), strict=True) if t >= 0]
    inside = sum(t == 1 for _, t in known)
    share = inside / len(known) if known else math.nan
    if not inside:
        return math.nan, math.nan, share
    tops = [t for v, t in known if v == max(v for v, _ in known)]
    energy = math.fsum(max(v, 0) for v, _ in known)
    on = math.fsum(max(v, 0) for v, t in known if t == 1)
    return sum(tops) / len(tops), on / energy if energy else 0.0, share


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 3, 10]), st.integers(0, 999),
    st.sampled_from([0.0, -2.0]),
)  # fmt: skip
def test_scores_equal_their_definitions(
    batch: int, height: int, width: int, levels: int, seed: int, shift: float
) -> None:
    maps, masks = drawn(batch, height, width, levels, seed)
    maps = maps + shift
    expected = np.array([_twin(m, k) for m, k in zip(maps, masks, strict=True)])
    for found, column in zip((*(s(maps, masks) for s in SCORES), object_share(masks)), expected.T, strict=True):
        np.testing.assert_allclose(found, column, rtol=0, atol=1e-14)


def test_by_hand() -> None:
    maps = torch.tensor([[[1.0, 5.0], [5.0, -3.0]], [[2.0, 9.0], [1.0, 0.0]]])
    masks = torch.tensor([[[1, 1], [0, 1]], [[0, -1], [1, 0]]])
    assert pointing_game(maps, masks).tolist() == [0.5, 0]  # two share the top; the 9 is where nothing is known
    assert energy_inside(maps, masks).tolist() == pytest.approx([6 / 11, 1 / 3])
    assert object_share(masks).tolist() == pytest.approx([3 / 4, 1 / 3])


def test_uninformative_map_scores_the_chance_level() -> None:
    _, masks = drawn(6, 20, 30)
    constant = torch.full(masks.shape, 0.3)
    torch.testing.assert_close(pointing_game(constant, masks), object_share(masks))
    torch.testing.assert_close(energy_inside(constant, masks), object_share(masks))
    assert energy_inside(-constant, masks).tolist() == [0] * 6
    assert energy_inside(0 * constant, masks).tolist() == [0] * 6
    random = torch.rand(4000, 4, 4)
    some = masks[:1, :4, :4].expand(4000, 4, 4)
    for score in SCORES:
        assert score(random, some).mean().item() == pytest.approx(object_share(some)[0].item(), abs=0.03)


def test_unscorable_maps_are_nan() -> None:
    maps, masks = drawn(5, 5, 9)
    maps[0, 2, 3], maps[1, 0, 0] = torch.nan, -torch.inf
    masks[2], masks[3] = -1, 0
    for score in SCORES:
        assert score(maps, masks).isnan().tolist() == [True, True, True, True, False]
    assert object_share(masks).isnan().tolist() == [False, False, True, False, False]
    assert object_share(masks)[3] == 0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e305])
def test_any_scale(scale: float) -> None:
    maps, masks = drawn(3, 8, 8)
    for score in SCORES:
        torch.testing.assert_close(score(maps * scale, masks), score(maps, masks), rtol=0, atol=1e-13)


@pytest.mark.parametrize("score", SCORES)
def test_each_image_separately(score: object) -> None:
    assert callable(score)
    maps, masks = drawn(5, 224, 224)
    together = score(maps, masks)
    assert together.shape == (5,)
    assert together.dtype == torch.float64
    for size in (1, 2, 3):
        parts = torch.cat([score(maps[i : i + size], masks[i : i + size]) for i in range(0, 5, size)])
        assert torch.equal(parts, together)
    assert score(maps[:0], masks[:0]).shape == object_share(masks[:0]).shape == (0,)
    assert torch.equal(score(maps[:, None], masks[:, None].to(torch.int8)), together)
    assert torch.equal(object_share(masks == 1), (masks == 1).double().mean((1, 2)))


@pytest.mark.parametrize("score", SCORES)
def test_bad_input_is_named(score: object) -> None:
    assert callable(score)
    maps, masks = drawn(3, 4, 5)
    with pytest.raises(ValueError, match="differ in shape; bring"):
        score(maps, masks[:2])
    with pytest.raises(ValueError, match=r"masks: 1 \(object\).*not [23]"):
        score(maps, masks + 2)
    with pytest.raises(ValueError, match=r"masks: .*not \(4, 5\)"):
        object_share(masks[0])
    with pytest.raises(ValueError, match=r"masks: 1 \(object\).*not [23]"):
        object_share(masks + 2)


def test_energy_of_negative_and_empty_maps() -> None:
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    maps = torch.tensor([[[1.0, 3.0], [0.0, -5.0]], [[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert energy_inside(maps, masks).tolist() == [0.25, 1.0, 0.0]
