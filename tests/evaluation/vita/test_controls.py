"""The controls, each on numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from captum_astro.evaluation.vita.another import WITHIN, another
from captum_astro.evaluation.vita.blur import blurred
from captum_astro.evaluation.vita.centre import centred
from captum_astro.evaluation.vita.controls import control_table
from captum_astro.evaluation.vita.power import smallest_difference
from captum_astro.evaluation.vita.results import PLAIN, Results
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.evaluation.vita.surviving import surviving
from captum_astro.functional.astrocyte import Modulation
from captum_astro.metrics import compare_paired


@pytest.mark.parametrize(("size", "width"), [(5, 0.2), (4, 0.5)])
def test_a_gaussian_at_the_centre(size: int, width: float) -> None:
    found = centred(size, width)
    for y in range(size):
        for x in range(size):
            away = (y - (size - 1) / 2) ** 2 + (x - (size - 1) / 2) ** 2
            assert found[y, x].item() == pytest.approx(math.exp(-away / (2 * (width * size) ** 2)))


def test_a_blur_spreads_each_map_over_its_own_pixels() -> None:
    maps = torch.zeros(2, 33, 33)
    maps[0, 16, 16] = 1
    maps[1, 0, 0] = 1
    found = blurred(maps, 2 / 33)
    line = torch.exp(-(torch.arange(-8.0, 9.0, dtype=torch.float64) ** 2) / 8)  # cut at 4 standard deviations
    line /= line.sum()
    torch.testing.assert_close(found[0, 8:25, 8:25], torch.outer(line, line), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "control", [lambda width: centred(4, width), lambda width: blurred(torch.ones(1, 4, 4), width)]
)
@pytest.mark.parametrize("width", [0.0, -1.0, math.nan])
def test_a_width_that_is_none(control: Any, width: float) -> None:
    with pytest.raises(ValueError, match="width: a fraction of the side length, above 0"):
        control(width)


def test_another_photograph_is_an_earlier_one() -> None:
    drawn = [another(index) for index in range(1, 1000)]
    assert another(0) is None
    assert all(other is not None and max(0, i - WITHIN) <= other < i for i, other in enumerate(drawn, 1))
    assert {i - other for i, other in enumerate(drawn, 1) if other is not None} == set(range(1, WITHIN + 1))
    assert drawn == [another(index) for index in range(1, 1000)]
    assert drawn != [another(index, seed=1) for index in range(1, 1000)]


def test_the_surviving_share() -> None:
    gain, kept = [0.4, 0.2, 0.1, 0.1, math.nan], [False, True, True, False, True]
    share, low, high = surviving(gain, kept)
    assert share == pytest.approx(0.15 / 0.2)
    assert low < share < high
    assert surviving([0.2, 0.4], [True, True]) == (1, 1, 1)
    assert all(map(math.isnan, surviving([0.2, 0.4], [False, False])))
    assert all(map(math.isnan, surviving([-0.2, 0.1], [True, True])))  # there is no gain
    assert all(map(math.isnan, surviving([-0.2, 0.4], [True, True])))  # there may be none


@pytest.mark.parametrize(
    ("n", "comparisons"), [(6, 1), (10, 1), (10, 9), (12, 75), (40, 1), (60, 75), (120, 15), (300, 12), (301, 12)]
)
def test_power_is_what_simulation_finds(n: int, comparisons: int) -> None:
    draws = np.random.default_rng(1).normal(0, 0.3, (3000, n))
    least = smallest_difference(draws[0] / draws[0].std(ddof=1) * 0.3, comparisons)
    found = stats.wilcoxon(draws + least, axis=1).pvalue < 0.05 / comparisons
    assert found.mean() == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize(("n", "comparisons"), [(1, 1), (5, 1), (6, 2), (6, 75), (10, 26)])
def test_a_test_that_can_find_nothing_has_no_power(n: int, comparisons: int) -> None:
    values = np.arange(1.0, n + 1)
    assert stats.wilcoxon(values).pvalue >= 0.05 / comparisons
    assert math.isnan(smallest_difference(values, comparisons))
    assert math.isnan(smallest_difference([*values, math.nan], comparisons))


def _rows(values: dict[tuple[int, str, str, float], list[float]]) -> pd.DataFrame:
    rows = [
        (i, setting, method, control, width, "dice" if method != "-" or control else "same class", value)
        for (setting, method, control, width), all_values in values.items()
        for i, value in enumerate(all_values)
    ]
    return pd.DataFrame(rows, columns=["sample", "setting", "method", "control", "width", "metric", "value"])


def test_each_control_is_compared_on_the_odd_samples() -> None:
    results = Results.of(
        _rows(
            {
                (0, "A", "", 0): [9, 0.6, 9, 0.8],
                (PLAIN, "A", "", 0): [0, 0.5, 0, 0.4],
                (0, "-", "", 0): [1, 1, 1, 0],
                (PLAIN, "-", "centre", 0.1): [0.3, 0.9, 0.3, 0.9],
                (PLAIN, "-", "centre", 0.2): [0.4, 0.2, 0.4, 0.1],
                (PLAIN, "A", "blurred", 0.05): [0.7, 0.5, 0.7, 0.9],
                (PLAIN, "A", "blurred", 0.1): [0.6, 1.0, 0.6, 1.0],
                (PLAIN, "B", "blurred", 0.2): [1.0, 1.0, 1.0, 1.0],
                (0, "A", "another", 0): [math.nan, 0.3, 0.0, 0.4],
                (PLAIN, "A", "another", 0): [math.nan, 0.1, 0.0, 0.3],
            }
        ),
        [Setting(Modulation())],
    )
    table = control_table({("A", "dice"): results}).set_index("control")
    expected = {
        "plain": ([0.6, 0.8], [0.5, 0.4]),
        "centre": ([0.6, 0.8], [0.2, 0.1]),
        "blurred": ([0.6, 0.8], [0.5, 0.9]),
        "another": ([0.1, 0.4], [0.2, 0.1]),
        "class kept": ([0.6], [0.5]),
    }
    assert table.index.tolist() == list(expected)
    for control, (modulated, beside) in expected.items():
        one, row = compare_paired(modulated, beside), table.loc[control]
        assert row["n"] == one.n
        assert row[["modulated", "beside", "difference"]].tolist() == pytest.approx(
            [one.mean_a, one.mean_b, one.difference]
        )
        assert (row["p"], row["p_holm"]) == (one.p_value, min(1, 5 * one.p_value))
        assert row["detectable"] == pytest.approx(smallest_difference(np.subtract(modulated, beside), 5), nan_ok=True)
    assert table["width"].tolist() == pytest.approx([math.nan, 0.2, 0.05, math.nan, math.nan], nan_ok=True)
    assert table.loc["class kept", "surviving"] == pytest.approx(0.1 / 0.25)
    assert table["surviving"].notna().sum() == 1


def test_without_an_odd_sample_nothing_is_compared() -> None:
    values = {(n, m, c, w): [0.5] for n, m, c, w in ((0, "A", "", 0), (PLAIN, "A", "", 0), (0, "-", "", 0))}
    values |= {(PLAIN, "-", "centre", 0.1): [0.5], (PLAIN, "A", "blurred", 0.1): [0.5]}
    values |= {(n, "A", "another", 0): [math.nan] for n in (0, PLAIN)}
    table = control_table({("A", "dice"): Results.of(_rows(values), [Setting(Modulation())])})
    assert table.empty
    assert {"control", "surviving"} <= set(table.columns)
