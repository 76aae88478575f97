from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_astro.metrics.ranking import rank_stability, resampled_sums, stability

TABLES = st.integers(1, 6).flatmap(
    lambda m: st.lists(st.lists(st.integers(-3, 3), min_size=m, max_size=m), min_size=1, max_size=6)
)


def _places(values: list[float]) -> list[float]:
    """Of each value: the values above it, and the mean place of those equal to it."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def _twin(draws: list[list[float]], whole: list[float]) -> tuple[list[float], list[float], list[list[float]], float]:
    m = len(whole)
    mean, shares, taus = [0.0] * m, [[0.0] * m for _ in range(m)], []
    for values in draws:
        places = _places(values)
        for i in range(m):
            mean[i] += places[i] / len(draws)
            above = sum(other > values[i] for other in values)
            equal = sum(other == values[i] for other in values)
            for place in range(above, above + equal):
                shares[i][place] += 1 / equal / len(draws)
        tau = stats.kendalltau(places, _places(whole)).statistic if m > 1 else float("nan")
        taus += [] if np.isnan(tau) else [tau]
    return _places(whole), mean, shares, float(np.mean(taus)) if taus else float("nan")


@settings(max_examples=60, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_ranks_equal_their_definition(draws: list[list[int]], random) -> None:
    whole = [float(random.choice([-1, 0, 1])) for _ in draws[0]]
    places, mean, shares, agreement = _twin([[float(v) for v in row] for row in draws], whole)
    found = stability(np.array(draws, float), np.array(whole), n=3)
    np.testing.assert_allclose(found.places, places, atol=1e-12)
    np.testing.assert_allclose(found.mean_places, mean, atol=1e-12)
    np.testing.assert_allclose(found.shares, shares, atol=1e-12)
    np.testing.assert_allclose(found.shares.sum(0), 1)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    np.testing.assert_allclose(found.agreement, agreement, atol=1e-12)
    assert (found.low <= found.mean_places + 1e-12).all()
    assert (found.mean_places <= found.high + 1e-12).all() or len(draws) > 40


def test_sums_are_of_drawn_rows() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    drawn = np.random.default_rng(5).integers(0, 7, (50, 7))
    expected = [sum(values[i] for i in rows) for rows in drawn]
    np.testing.assert_allclose(resampled_sums(values, 50, 5), expected, atol=1e-12)


def test_blocks_do_not_change_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(30, 1))
    whole = resampled_sums(values, 4000, 1)
    monkeypatch.setattr("captum_astro.metrics.ranking._DRAWN_AT_ONCE", 64)
    blocks = resampled_sums(values, 4000, 1)
    assert blocks.mean() == pytest.approx(whole.mean(), abs=0.4)
    assert blocks.std() == pytest.approx(whole.std(), rel=0.1)


def test_certain_and_uncertain_ranking() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 1))
    sure = rank_stability(noise + np.array([3.0, 2, 1]))  # the noise is common, so no image changes the order
    assert sure.places.tolist() == sure.mean_places.tolist() == [1, 2, 3]
    assert (sure.low == sure.high).all()
    assert (sure.first.tolist(), sure.agreement, sure.n, sure.left_out) == ([1, 0, 0], 1, 200, 0)
    unsure = rank_stability(np.random.default_rng(1).normal(size=(200, 3)))
    assert unsure.agreement < 0.9
    assert (unsure.high > unsure.low).any()


def test_lower_can_be_better_and_nan_is_left_out() -> None:
    scores = torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [1.0, 3.0]])
    found = rank_stability(scores, samples=20, larger_is_better=False)
    assert found.places.tolist() == [1, 2]
    assert (found.n, found.left_out) == (2, 1)
    assert rank_stability(scores, samples=20).places.tolist() == [2, 1]


def test_equal_methods_tie_whatever_the_order_of_sums() -> None:
    column = np.random.default_rng(2).random(1000)
    found = rank_stability(np.stack([column, column, column - 1], 1), samples=100)
    assert found.places.tolist() == [1.5, 1.5, 3]
    assert found.shares[:2, :2].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert found.agreement == 1
    assert np.isnan(rank_stability(np.stack([column, column], 1), samples=20).agreement)


def test_the_same_seed_gives_the_same() -> None:
    scores = np.random.default_rng(3).normal(size=(30, 4))
    assert (rank_stability(scores, 50, 7).shares == rank_stability(scores, 50, 7).shares).all()
    assert (rank_stability(scores, 50, 7).shares != rank_stability(scores, 50, 8).shares).any()


@pytest.mark.parametrize(
    ("scores", "samples", "message"),
    [
        (np.zeros(3), 9, r"not \(3,\)"),
        (np.zeros((3, 0)), 9, r"not \(3, 0\)"),
        (np.full((2, 2), np.inf), 9, "infinite"),
        (np.full((2, 2), np.nan), 9, "no row without NaN among 2"),
        (np.zeros((2, 2)), 0, "0 bootstrap samples"),
    ],
)
def test_bad_input_is_named(scores: np.ndarray, samples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_stability(scores, samples)
