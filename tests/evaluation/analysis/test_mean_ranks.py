from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_astro.evaluation.analysis import comparisons, mean_ranks, ranking
from captum_astro.evaluation.report.verdict import verdict
from tests.evaluation import synthetic

METRICS = ("SaCo", "deletion", "sparseness", "accuracy")  # high, low, no rank, of the model
TIMES = 300


def _rows(**values: list[float | None]) -> pd.DataFrame:
    found = [
        (sample, "vit", method, "SaCo", "predicted", value)
        for method, own in values.items()
        for sample, value in enumerate(own)
    ]
    return pd.DataFrame(found, columns=["sample", "model", "method", "metric", "explained", "value"])


def test_mean_ranks_are_those_of_every_score_in_the_same_images() -> None:
    rows = synthetic.rows(10, metrics=METRICS)
    rows = rows[rows["metric"].isin(METRICS[:2]) & ~((rows["metric"] == "SaCo") & (rows["explained"] == "true"))]
    scores = list(dict.fromkeys(zip(rows["metric"], rows["explained"], strict=True)))
    assert len(scores) == 3
    values = {
        score: own.pivot_table(index="sample", columns="method", values="value")[list(synthetic.METHODS)].to_numpy()
        * (-1 if score[0] == "SaCo" else 1)
        for score, own in rows.groupby(["metric", "explained"])
    }

    def means(images: np.ndarray) -> np.ndarray:
        return np.mean([stats.rankdata(own[images].mean(0)) for own in values.values()], axis=0)

    whole = means(np.arange(10))
    drawn = np.array([means(images) for images in np.random.default_rng(0).integers(0, 10, (TIMES, 10))])
    found = mean_ranks(synthetic.rows(10, metrics=METRICS), TIMES).set_index("method").loc[list(synthetic.METHODS)]
    np.testing.assert_allclose(found["mean_rank"], whole)
    np.testing.assert_allclose(found[["low", "high"]], np.percentile(drawn, [2.5, 97.5], axis=0).T)
    firsts = np.isclose(drawn, drawn.min(1, keepdims=True))
    np.testing.assert_allclose(found["first"], (firsts / firsts.sum(1, keepdims=True)).mean(0))
    tau = np.nanmean([stats.kendalltau(own, whole).statistic for own in drawn])
    np.testing.assert_allclose(found["agreement"], tau)
    assert set(found["scores"]) == {3}
    assert set(found["n"]) == {10}


def test_the_best_is_first_and_the_means_are_those_of_the_verdict() -> None:
    rows = synthetic.rows(10, metrics=METRICS, failing=("LRP", 3))
    found = mean_ranks(rows, 50)
    assert all(a <= b for a, b in pairwise(found["mean_rank"]))
    said = verdict(ranking(rows, 50), comparisons(rows, None, 50)).figures[0]
    assert said.endswith(
        ", ".join(f"{name} {mean:.1f}" for name, mean in found[["method", "mean_rank"]].values[:3]) + "."
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"A": [0.3, None], "B": [0.2, 0.9]}, {"A": 1.0, "B": 2.0}),  # on the images that both have
        ({"A": [0.3, 0.4], "B": [0.2, 0.1], "C": [None, None]}, {"A": 1.0, "B": 2.0, "C": 3.0}),  # the last
        ({"A": [0.3, 0.4], "B": [0.4, 0.3]}, {"A": 1.5, "B": 1.5}),
    ],
)
def test_missing_values_and_ties(values, expected: dict[str, float]) -> None:
    found = mean_ranks(_rows(**values), 50)
    assert dict(zip(found["method"], found["mean_rank"], strict=True)) == expected


def test_the_true_class_counts_once_if_it_repeats_the_predicted_one() -> None:
    rows = _rows(A=[0.3, 0.4], B=[0.2, 0.1])
    other = rows.assign(explained="true")
    assert set(mean_ranks(pd.concat([rows, other]), 5)["scores"]) == {1}
    assert set(mean_ranks(pd.concat([rows, other.assign(value=other["value"] + 1)]), 5)["scores"]) == {2}


def test_nothing_ranks() -> None:
    assert mean_ranks(synthetic.rows(3, metrics=("sparseness", "accuracy")), 5).empty
