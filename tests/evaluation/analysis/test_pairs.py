"""Pairs that are told apart, beside scipy's test and Holm's correction by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from captum_astro.evaluation.analysis import told_apart
from tests.evaluation.analysis.test_analysis import _rows


@pytest.mark.parametrize("metric", ["SaCo", "deletion"])  # higher is better, and lower
def test_pairs_by_hand(metric: str) -> None:
    random = np.random.default_rng(0)
    shift = {"a": 0.0, "b": 0.1, "c": 1.0, "d": 1.6}
    values = {name: (random.normal(size=30) + by).tolist() for name, by in shift.items()}
    values["c"][3] = float("nan")
    pairs = list(combinations(values, 2))
    sets = [np.array([x for x in zip(values[a], values[b], strict=True) if np.isfinite(x).all()]) for a, b in pairs]
    p = np.array([stats.wilcoxon(one[:, 0], one[:, 1]).pvalue for one in sets])
    expected, largest = {}, 0.0
    for place, i in enumerate(np.argsort(p)):
        largest = max(largest, min(1.0, p[i] * (len(p) - place)))
        a, b = pairs[i]
        gain = float((sets[i][:, 0] - sets[i][:, 1]).mean())
        if largest < 0.05:
            better, worse = (a, b) if (gain > 0) == (metric == "SaCo") else (b, a)
            expected[better, worse] = (gain if better == a else -gain, largest)
    found = {(row["better"], row["worse"]): (row["difference"], row["p_holm"])
             for row in told_apart(_rows(values, metric)).to_dict("records")}  # fmt: skip
    assert 2 <= len(expected) < len(pairs)
    assert found.keys() == expected.keys()
    for pair, figures in expected.items():
        assert found[pair] == pytest.approx(figures, rel=1e-9)


def test_without_pairs_there_are_no_rows() -> None:
    assert told_apart(_rows({"a": [1.0, 2.0]})).empty
    assert told_apart(_rows({"a": [float("nan")] * 3, "b": [1.0, 2.0, 3.0]})).empty
