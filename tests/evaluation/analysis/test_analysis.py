from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_astro.evaluation.analysis import comparisons, failures, ranking, summary
from captum_astro.metrics import bootstrap_interval, holm
from captum_astro.metrics.registry import all_metrics
from tests.evaluation import synthetic

FEW = 200


def _rows(values: dict[str, list[float]], metric: str = "SaCo", **more: object) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"sample": i, "name": f"{i}", "model": "vit", "method": method, "metric": metric, "explained": "predicted",
             "value": value, "curve": None, "error": None, **more}
            for method, row in values.items() for i, value in enumerate(row)
        ]
    )  # fmt: skip


def _drawn(n: int, times: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, (times, n))


def test_means_and_intervals() -> None:
    values = np.random.default_rng(0).normal(size=80)
    table = summary(_rows({"LRP": values.tolist()}), bootstrap=5000)
    row = table.iloc[0]
    means = [np.mean(values[rows]) for rows in _drawn(80, 5000)]
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-12)
    np.testing.assert_allclose(row[["low", "high"]].to_list(), np.percentile(means, [2.5, 97.5]), atol=1e-12)
    np.testing.assert_allclose(row[["low", "high"]].to_list(), bootstrap_interval(values), atol=0.03)


@pytest.mark.parametrize("metric", ["pixel accuracy", "mIoU"])
def test_pooled_metrics_are_pooled_in_every_bootstrap_sample(metric: str) -> None:
    rows = synthetic.rows(15, ("LRP",), metrics=(metric,))
    rows = rows[rows["explained"] == "true"]
    counts = np.stack(rows.sort_values("sample")["curve"].to_list())

    def pooled(drawn: np.ndarray) -> float:
        c = [sum(counts[i][k] for i in drawn) for k in range(6)]
        return c[0] / c[1] if metric == "pixel accuracy" else (c[2] / c[4] + c[3] / c[5]) / 2

    row = summary(rows, bootstrap=FEW).iloc[0]
    assert row["mean"] == pytest.approx(pooled(np.arange(15)), abs=1e-12)
    assert abs(row["mean"] - rows["value"].mean()) > 1e-6  # not the mean of the images
    expected = np.percentile([pooled(drawn) for drawn in _drawn(15, FEW)], [2.5, 97.5])
    np.testing.assert_allclose(row[["low", "high"]].to_list(), expected, atol=1e-12)


def test_failed_and_undefined_samples_are_counted_separately() -> None:
    rows = _rows({"LRP": [0.5, np.nan, np.nan, 0.7], "VTranM": [0.1, 0.2, 0.3, 0.4]})
    rows.loc[1, "error"] = "ValueError: no map"
    row = summary(rows, bootstrap=FEW).iloc[0]
    assert (row["n"], row["failed"], row["mean"]) == (2, 1, 0.6)
    nothing = summary(_rows({"LRP": [np.nan, np.nan]}), bootstrap=FEW).iloc[0]
    assert nothing["n"] == 0
    assert nothing[["mean", "low", "high"]].isna().all()


def test_comparisons() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(size=30)
    values = {"VTranM": base, "LRP": base - 0.5 + 0.3 * rng.normal(size=30), "ATTCAT": base + 0.3 * rng.normal(size=30)}
    values["LRP"][4] = np.nan
    rows = _rows({name: row.tolist() for name, row in values.items()})
    table = comparisons(rows, bootstrap=FEW).set_index("method")
    assert list(table.index) == ["LRP", "ATTCAT"]
    both = ~np.isnan(values["LRP"])
    difference = (values["LRP"] - base)[both]
    row = table.loc["LRP"]
    assert (row["n"], row["left_out"], row["against"]) == (29, 1, "VTranM")
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-12)
    assert row["p"] == pytest.approx(stats.wilcoxon(difference).pvalue, abs=1e-14)
    p = table["p"].to_numpy()
    np.testing.assert_allclose(table["p_holm"], holm(p), atol=1e-15)
    drawn = [np.nanmean(values["LRP"][i]) - base[i][both[i]].mean() for i in _drawn(30, FEW)]
    np.testing.assert_allclose(row[["low", "high"]].to_list(), np.percentile(drawn, [2.5, 97.5]), atol=1e-12)


def test_holms_correction_is_over_a_models_table_or_over_a_column_against_the_best() -> None:
    rows = synthetic.rows(12, metrics=("SaCo", "Spearman", "LOdds"), models=("a", "b"))
    table = comparisons(rows, "LRP", bootstrap=10)
    for _, own in table.groupby("model"):
        assert len(own) == 15  # three methods by five columns
        np.testing.assert_allclose(own["p_holm"], holm(own["p"].to_numpy()))
    table = comparisons(rows, None, bootstrap=10)
    for (_, metric, _), own in table.groupby(["model", "metric", "explained"]):
        np.testing.assert_allclose(own["p_holm"], holm(own["p"].to_numpy()))
        assert own["against"].nunique() == 1
        assert (own["difference"] * all_metrics()[metric].direction <= 0).all()


def test_pooled_differences_are_of_pooled_values() -> None:
    rows = synthetic.rows(10, ("LRP", "VTranM"), metrics=("mIoU",))
    whole = summary(rows, bootstrap=5).set_index(["explained", "method"])["mean"]
    for row in comparisons(rows, bootstrap=5).to_dict("records"):
        expected = whole[row["explained"], "LRP"] - whole[row["explained"], "VTranM"]
        assert row["difference"] == pytest.approx(expected, abs=1e-12)


def test_comparison_without_common_samples_has_no_values() -> None:
    table = comparisons(_rows({"VTranM": [1, np.nan], "LRP": [np.nan, 1], "ATTCAT": [1, 2]}), bootstrap=10)
    row = table.set_index("method").loc["LRP"]
    assert row["n"] == 0
    assert row[["difference", "low", "high", "effect", "p", "p_holm"]].isna().all()
    assert comparisons(_rows({"VTranM": [1.0]})).empty
    with pytest.raises(ValueError, match=r"vit: no method 'Magic'.*LRP"):
        comparisons(_rows({"LRP": [1.0]}), "Magic")


def test_ranking() -> None:
    rows = synthetic.rows(20, failing=("LRP", 3))
    table = ranking(rows, bootstrap=FEW)
    assert set(table["metric"]) == {name for name, info in all_metrics().items() if not info.of_model and info.ranks}
    assert (table["n"] == 19).all()
    assert (table["left_out"] == 1).all()
    for (metric, _), own in table.groupby(["metric", "explained"]):
        assert own["place"].sum() == 10
        assert own["first"].sum() == pytest.approx(1)
        if metric == "energy inside":
            assert own.set_index("method").loc["VTranM", "place"] == 1
    lower = table[(table["metric"] == "positive AUC") & (table["explained"] == "true")].set_index("method")
    assert lower.loc["VTranM", "place"] == 1


def test_ranking_leaves_out_a_method_without_values() -> None:
    table = ranking(_rows({"VTranM": [1, 2], "LRP": [np.nan, np.nan], "ATTCAT": [0, 1]}), bootstrap=10)
    assert table["method"].tolist() == ["VTranM", "ATTCAT"]
    assert ranking(_rows({"VTranM": [1, np.nan], "LRP": [np.nan, 1]}), bootstrap=10).empty


def test_failures() -> None:
    [found] = failures(synthetic.rows(5, failing=("LRP", 3), metrics=("SaCo", "Dice"))).to_dict("records")
    assert (found["model"], found["method"], found["error"]) == ("vit", "LRP", "ValueError: no map")
    assert (found["samples"], found["rows"], found["names"]) == (1, 3, "image-3.png")
    assert failures(_rows({"LRP": [1.0]})).empty


def test_order_and_the_same_seed() -> None:
    rows = synthetic.rows(6, models=("b", "a"), metrics=("mIoU", "AOPC"), failing=("LRP", 0))
    table = summary(rows, bootstrap=20)
    pd.testing.assert_frame_equal(table, summary(rows, bootstrap=20))
    shuffled = summary(rows.sample(frac=1, random_state=1), bootstrap=20)
    key = ["model", "method", "metric", "explained"]
    pd.testing.assert_frame_equal(
        table.sort_values(key, ignore_index=True), shuffled.sort_values(key, ignore_index=True)
    )
    assert not summary(rows, bootstrap=20, seed=1).equals(table)
