from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from captum_astro.evaluation.analysis import comparisons, summary
from captum_astro.evaluation.analysis.failed import failures, has_failed
from captum_astro.evaluation.analysis.groups import groups
from tests.evaluation import synthetic


def _rows(values: dict[str, list[float]], metric: str = "SaCo") -> pd.DataFrame:
    return pd.DataFrame(
        [
            (i, "vit", method, metric, "predicted", value)
            for method, row in values.items()
            for i, value in enumerate(row)
        ],
        columns=["sample", "model", "method", "metric", "explained", "value"],
    )


def test_bad_rows_are_named() -> None:
    rows = _rows({"LRP": [1.0, 2.0]})
    with pytest.raises(ValueError, match="no column value"):
        summary(rows.drop(columns="value"))
    with pytest.raises(ValueError, match="vit / LRP / SaCo / predicted / 1 comes more than once"):
        summary(pd.concat([rows, rows.iloc[[1]]]))
    with pytest.raises(ValueError, match="mIoU is pooled"):
        summary(_rows({"LRP": [0.5]}, "mIoU"))


def test_one_group_per_model_metric_and_class() -> None:
    rows = synthetic.rows(4, ("LRP", "VTranM"), metrics=("Dice", "SaCo"), models=("b", "a"), failing=("LRP", 2))
    found = [group for group in groups(rows) if group.methods != ["-"]]
    keys = [("SaCo", "predicted"), ("Dice", "predicted"), ("Dice", "true")]
    expected = [(model, *key) for model in ("a", "b") for key in keys]
    assert [(group.model, group.info.name, group.explained) for group in found] == expected
    for group in found:
        assert group.values.shape == (4, 2)
        assert group.failed[group.methods.index("LRP")] == np.isnan(group.values).sum() == 1


def test_value_of_a_set_from_sums() -> None:
    [group] = groups(_rows({"LRP": [0.5, np.nan, 0.7], "ATTCAT": [np.nan, np.nan, np.nan]}))
    np.testing.assert_allclose(group.statistic(group.parts(group.valid).sum(0)), [0.6, np.nan])
    kept = group.valid & (group.samples == 2)[:, None]
    np.testing.assert_allclose(group.statistic(group.parts(kept).sum(0)), [0.7, np.nan])


def test_samples_missing_for_a_method_and_metrics_of_others() -> None:
    rows = _rows({"LRP": [1.0, 2.0], "ATTCAT": [3.0]}, "a metric of one's own")
    [group] = groups(rows)
    assert group.info.direction == 1
    np.testing.assert_array_equal(group.values, [[1, 3], [2, np.nan]])
    assert group.failed.tolist() == [0, 0]


def test_image_with_one_class_counts_in_pooled_metrics() -> None:
    # its own mIoU is undefined: neither its mask nor its map shows an object
    counts = [[30, 40, 20, 10, 25, 15], [16, 16, 16, 0, 16, 0]]
    rows = _rows({"LRP": [0.7333, None]}, "mIoU").assign(curve=counts)
    row = summary(rows).iloc[0]
    assert row["n"] == 2
    assert row["mean"] == pytest.approx((36 / 41 + 10 / 15) / 2)
    alone = summary(rows.iloc[1:]).iloc[0]
    assert (alone["n"], np.isnan(alone["mean"])) == (1, True)
    both = pd.concat([rows, rows.assign(method="VTranM")])
    assert comparisons(both)[["n", "difference"]].to_numpy().tolist() == [[2, 0]]


def test_undefined_values_are_no_failures() -> None:
    errors = ["Undefined: the map is constant", "ValueError: no good", None]
    rows = pd.DataFrame({
        "sample": [0, 1, 2], "name": ["a", "b", "c"], "model": "vit", "method": "LRP", "metric": "SaCo",
        "explained": "predicted", "value": [None, None, 0.5], "error": errors,
    })  # fmt: skip
    assert has_failed(rows).tolist() == [False, True, False]
    assert failures(rows)["error"].tolist() == ["ValueError: no good"]
