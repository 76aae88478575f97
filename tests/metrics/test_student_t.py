from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from captum_astro.metrics import t_mean


@pytest.mark.parametrize("n", [2, 3, 10, 100])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_agrees_with_scipy(n: int, level: float) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n)
    tested = stats.ttest_1samp(values, 0)
    interval = tested.confidence_interval(level)
    found = t_mean(values, level)
    np.testing.assert_allclose(astuple(found), (values.mean(), *interval, tested.pvalue), rtol=1e-12)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(0, 1, (4000, 3))
    held = [found.low < 0 < found.high for found in map(t_mean, samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_values_without_scatter() -> None:
    assert astuple(t_mean([0.2, 0.2, 0.2])) == (0.2, 0.2, 0.2, 0)
    assert astuple(t_mean([0, 0])) == (0, 0, 0, 1)


def test_one_value_has_no_interval() -> None:
    value, *rest = astuple(t_mean([0.7]))
    assert value == 0.7
    assert all(map(math.isnan, rest))


@pytest.mark.parametrize("values", [[], [1, math.nan], [1, math.inf], [[1, 2]]])
def test_invalid_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one, and none NaN or infinite"):
        t_mean(values)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_invalid_level(level: float) -> None:
    with pytest.raises(ValueError, match="level: between 0 and 1"):
        t_mean([1, 2], level)
