from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_astro.metrics import bootstrap_interval, compare_many, compare_paired, holm

PROBABILITIES = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02]), max_size=8)
# on a grid, so that equal and zero differences occur and are equal exactly
SCORES = st.integers(-8, 8).map(lambda i: i / 4)


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


def _holm(p: list[float]) -> list[float]:
    """The largest ``(m - j + 1) p_(j)`` over all ranks j up to one's own."""
    ordered = sorted(p)
    return [min(1, max((len(p) - j) * ordered[j] for j in range(ordered.index(value) + 1))) for value in p]


def _signed_rank(differences: list[float]) -> tuple[float, float]:
    """The exact p-value over all signs, and the effect size."""
    changed = [d for d in differences if d]
    if not changed:
        return 1.0, 0.0
    size = [abs(d) for d in changed]
    ranks = [sum(other < s for other in size) + (sum(other == s for other in size) + 1) / 2 for s in size]
    plus = sum(r for r, d in zip(ranks, changed, strict=True) if d > 0)
    total = sum(ranks)
    smaller = min(plus, total - plus)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    tail = sum(s <= smaller for s in sums) / len(sums)
    return min(1.0, 2 * tail), (2 * plus - total) / total


def test_holm_by_hand() -> None:
    # .005 x 4, .01 x 3, .03 x 2, .04 x 1 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []
    assert holm(torch.tensor([0.5, 0.25])).tolist() == [0.5, 0.5]


@settings(max_examples=100, deadline=None)
@given(PROBABILITIES)
def test_holm_equals_its_definition(p: list[float]) -> None:
    adjusted = holm(p)
    assert adjusted.tolist() == pytest.approx(_holm(p))
    assert all(0 <= raw <= corrected <= 1 for raw, corrected in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p))).all()


@pytest.mark.parametrize("p", [[0.1, float("nan")], [-0.1], [1.1]])
def test_holm_rejects_invalid_p_values(p: list[float]) -> None:
    with pytest.raises(ValueError, match="p_values: from 0 to 1"):
        holm(p)


def test_the_bootstrap_interval() -> None:
    values = np.random.default_rng(3).normal(2, 1, 400)
    low, high = bootstrap_interval(values)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap_interval(torch.from_numpy(values)) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval(values, np.median, resamples=200)[0] < np.median(values)
    assert bootstrap_interval(values, lambda x: float(max(x)), resamples=50)[1] == values.max()


def test_bootstrap_equals_its_definition() -> None:
    values = [0.1, 0.5, 0.7, 1.9, 0.2]
    rng = np.random.default_rng(7)
    means = [np.mean(np.array(values)[rng.integers(0, 5, 5)]) for _ in range(20000)]
    found = bootstrap_interval(values, resamples=20000)
    np.testing.assert_allclose(found, np.percentile(means, [2.5, 97.5]), atol=0.03)


@pytest.mark.parametrize("values", [[0.1] * 7, [0.1], [0.0, -0.0]])
def test_the_bootstrap_of_equal_values(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert low == high == pytest.approx(values[0])


def test_the_bootstrap_names_bad_input() -> None:
    for values in ([], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(ValueError, match="values: at least one"):
            bootstrap_interval(values)
    with pytest.raises(ValueError, match=r"values: one number a sample.*\(2, 2\)"):
        bootstrap_interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1, 2], level=95)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval([1, 2], resamples=0)


def test_a_comparison_by_hand() -> None:
    nan = float("nan")
    found = compare_paired([5, 7, nan, 4, 1, 9], [4, 4, 1, 6, 1, nan])
    # differences 1, 3, -2, 0: ranks 1, 3, 2 of six, four of them for a
    assert (found.n, found.left_out) == (4, 2)
    assert (found.mean_a, found.mean_b, found.difference) == (4.25, 3.75, 0.5)
    assert found.effect_size == pytest.approx(1 / 3)
    # of the eight sums of ranks 0 1 2 3 3 4 5 6, three are at most 2
    assert found.p_value == 0.75
    assert -2 <= found.interval[0] < 0.5 < found.interval[1] <= 3
    assert found.p_holm is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=9))
def test_comparisons_equal_their_definitions(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    found = compare_paired(a, b)
    p_value, effect = _signed_rank([x - y for x, y in pairs])
    assert found.p_value == pytest.approx(p_value)
    assert found.effect_size == pytest.approx(effect, abs=1e-12)
    assert found.difference == pytest.approx(sum(x - y for x, y in pairs) / len(pairs))
    assert found.interval[0] <= found.interval[1]
    other = compare_paired(b, a)
    assert other.p_value == pytest.approx(found.p_value)
    assert other.effect_size == pytest.approx(-found.effect_size)


@pytest.mark.parametrize("n", [30, 200])
def test_scipy_agrees_on_many_samples(n: int) -> None:
    rng = np.random.default_rng(n)
    b = rng.normal(size=n)
    a = b + rng.normal(0.2, 1, n)
    assert compare_paired(a, b).p_value == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-12)


def test_pairs_without_a_difference() -> None:
    for values in ([0.3, 0.3, 0.5], [0.3]):
        found = compare_paired(values, values)
        assert (found.p_value, found.effect_size, found.difference, found.interval) == (1, 0, 0, (0, 0))
    always = compare_paired(torch.arange(8) + 1.0, torch.arange(8))
    assert always.effect_size == 1
    assert always.interval == (1, 1)
    assert always.p_value == pytest.approx(2 / 2**8)


def test_comparisons_name_bad_input() -> None:
    nan = float("nan")
    with pytest.raises(ValueError, match="2 and 1 values"):
        compare_paired([1, 2], [1])
    with pytest.raises(ValueError, match="infinite"):
        compare_paired([1, float("inf")], [1, 2])
    with pytest.raises(ValueError, match="no pair without NaN among 2"):
        compare_paired([1, nan], [nan, 2])
    with pytest.raises(ValueError, match="rollout, ssim: a and b hold"):
        compare_many({"rollout, ssim": ([1, 2], [1])})


def test_many_comparisons() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=40)
    pairs = {str(shift): (base + rng.normal(shift, 1, 40), base) for shift in (0.0, 1.0, 0.4)}
    found = compare_many(pairs)
    assert list(found) == ["0.0", "1.0", "0.4"]
    alone = [compare_paired(*pair) for pair in pairs.values()]
    assert [each.p_holm for each in found.values()] == holm([each.p_value for each in alone]).tolist()
    assert [each.interval for each in found.values()] == [each.interval for each in alone]
    assert compare_many({}) == {}
