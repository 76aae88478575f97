from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_astro.metrics.signed_rank import signed_rank_p

CHANGES = st.integers(-6, 6).filter(bool).map(lambda i: i / 4)


def _all_signs(differences: list[float]) -> float:
    size = [abs(d) for d in differences]
    ranks = [sum(other < s for other in size) + (sum(other == s for other in size) + 1) / 2 for s in size]
    observed = sum(r for r, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    below, above = sum(s <= observed for s in sums), sum(s >= observed for s in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=9))
def test_it_counts_all_signs(differences: list[float]) -> None:
    assert signed_rank_p(np.array(differences)) == pytest.approx(_all_signs(differences), abs=1e-15)


@pytest.mark.parametrize("n", [1, 5, 6, 13, 14, 40, 60])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_scipys(n: int, tied: bool) -> None:
    if tied and 6 < n <= 13:
        n = 7  # scipy goes through all signs
    values = np.random.default_rng(n).normal(0.3, 1, n)
    values = np.where(values > 0, 1.0, -1.0) * np.ceil(np.abs(values) * 2) if tied else values
    assert signed_rank_p(values) == pytest.approx(stats.wilcoxon(values).pvalue, abs=1e-14)


def test_no_difference() -> None:
    assert signed_rank_p(np.array([])) == 1
