from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from captum_astro.evaluation.vita.power import smallest_difference
from captum_astro.evaluation.vita.results import PLAIN, Results, compared
from captum_astro.evaluation.vita.settings import Setting, grid
from captum_astro.functional.astrocyte import Modulation
from captum_astro.metrics import compare_paired
from tests.evaluation.vita.making import GRID, make_model, make_samples, searched


def test_resumes_where_it_stopped(tmp_path: Path) -> None:
    model, samples, settings = make_model("cls"), make_samples(7), grid(**GRID)
    whole = searched(model, samples, settings, batch_size=2).scores

    def stop(count: int) -> None:
        if count >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(model, samples, settings, batch_size=2, out=tmp_path, done=stop)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert len(written) == 2
    again = searched(model, samples, settings, batch_size=2, out=tmp_path)
    assert all(file.stat().st_mtime_ns == before for file, before in written.items())
    pd.testing.assert_frame_equal(again.scores, whole, check_exact=True)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match=r"another run \(settings differ\)"):
        searched(model, samples, settings[:2], batch_size=2, out=tmp_path)
    with torch.no_grad():
        model.head.bias.add_(1)
    with pytest.raises(ValueError, match=r"another run \(weights differ\)"):
        searched(model, samples, settings, batch_size=2, out=tmp_path)


def test_results_are_tied_to_their_samples(tmp_path: Path) -> None:
    model, settings = make_model("cls"), grid(**GRID)
    searched(model, make_samples(5), settings, batch_size=2, out=tmp_path)
    more = searched(
        model, make_samples(8), settings, batch_size=2, out=tmp_path
    )  # the last batch was short, and is done again
    pd.testing.assert_frame_equal(more.scores, searched(model, make_samples(8), settings, batch_size=2).scores)
    fewer = searched(model, make_samples(3), settings, batch_size=2, out=tmp_path).scores
    assert sorted(fewer["sample"].unique()) == [0, 1, 2]
    (tmp_path / "scores-000000.parquet").write_bytes(b"PAR1 cut short")
    again = searched(model, make_samples(3), settings, batch_size=2, out=tmp_path).scores
    pd.testing.assert_frame_equal(again, fewer)
    others = [sample._replace(human=sample.human + 1) for sample in make_samples(3)]
    with pytest.raises(ValueError, match="results of other samples"):
        searched(model, others, settings, batch_size=2, out=tmp_path)
    with pytest.raises(ValueError, match=r"another run \(cam_layer differ\)"):
        searched(model, make_samples(3), settings, batch_size=2, out=tmp_path, cam_layer="blocks.1.norm1")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        searched(model, make_samples(3), settings, batch_size=2, out=tmp_path)


def test_best_is_selected_on_one_half_and_reported_on_the_other() -> None:
    rows: list[Any] = []
    for i in range(12):
        for setting, value in ((PLAIN, 0.5), (0, 0.9 - 0.6 * (i % 2)), (1, 0.7 + 0.01 * i)):
            rows.append((i, str(i), setting, "TokenGradCAM", "dice", value))
            rows.append((i, str(i), setting, "-", "same class", float(setting != 0)))
    scores = pd.DataFrame(rows, columns=["sample", "name", "setting", "method", "metric", "value"])
    results = Results(scores, [Setting(Modulation()), Setting(Modulation(k=4), "blocks.1.mlp.fc1")])
    table = results.table("search")
    assert table[(table["setting"] == 0) & (table["metric"] == "dice")]["mean"].item() == pytest.approx(0.9)
    assert table[(table["setting"] == 1)]["layer"].iloc[0] == "blocks.1.mlp.fc1"
    (best,) = results.best().to_dict("records")
    assert best["setting"] == 0  # better on the even samples, worse on the odd ones
    assert best["n"] == 6
    assert best["modulated"] == pytest.approx(0.3)
    expected = compare_paired([0.3] * 6, [0.5] * 6)
    assert best["p_holm"] == best["p"] == expected.p_value
    assert best["difference"] == pytest.approx(-0.2)
    assert best["same_class"] == 0
    assert results.compare(1)["modulated"].item() == pytest.approx(0.755)


def test_halves_and_compared() -> None:
    rows: list[Any] = []
    for i, value in enumerate([0.1, 0.2, 0.3, 0.4]):
        rows += [(i, PLAIN, "A", "dice", value), (i, 0, "A", "dice", 2 * value), (i, 0, "-", "same class", i % 2)]
        rows += [(i, n, "A", "ssim", math.nan) for n in (PLAIN, 0)]
        rows += [(i, n, "-", "accuracy", float(i < 3 + n)) for n in (PLAIN, 0)]
    scores = pd.DataFrame(rows, columns=["sample", "setting", "method", "metric", "value"])
    results = Results(scores, [Setting(Modulation())])
    assert sorted(results.split("search")["sample"].unique()) == [0, 2]
    assert sorted(results.split("report")["sample"].unique()) == [1, 3]
    table = compared(scores, {("A", "dice"): 0, ("A", "ssim"): 0}).set_index("metric")
    assert table.loc["dice", ["n", "left_out"]].tolist() == [4, 0]
    assert table.loc["dice", "plain"] == pytest.approx(0.25)
    assert table.loc["dice", "modulated"] == pytest.approx(0.5)
    assert table.loc["dice", "same_class"] == 0.5
    assert table.loc["dice", ["plain_accuracy", "accuracy"]].tolist() == [0.5, 0.75]
    assert math.isnan(table.loc["dice", "detectable"])  # four samples can find nothing
    assert table.loc["ssim", ["n", "left_out"]].tolist() == [0, 4]
    assert math.isnan(table.loc["ssim", "p_holm"])
    assert table.loc["dice", "p_holm"] == table.loc["dice", "p"]  # what is undefined does not count
    without = compared(scores[scores["metric"] != "accuracy"], {("A", "dice"): 0})
    assert "accuracy" not in without


def test_the_least_difference_that_is_found_is_said() -> None:
    gains = {"dice": [0.1, 0.2, 0.3, 0.4, 0.0, -0.1, 0.2, 0.1, 0.5, 0.3], "ssim": [0.0, 0.1] * 5}
    rows = [
        (i, setting, "A", metric, value if setting == 0 else 0.0)
        for metric, values in gains.items()
        for i, value in enumerate(values)
        for setting in (PLAIN, 0)
    ]
    rows += [(i, 0, "-", "same class", 1.0) for i in range(10)]
    scores = pd.DataFrame(rows, columns=["sample", "setting", "method", "metric", "value"])
    table = compared(scores, {("A", "dice"): 0, ("A", "ssim"): 0}).set_index("metric")
    for metric, values in gains.items():
        assert table.loc[metric, "detectable"] == pytest.approx(smallest_difference(values, 2))
        assert table.loc[metric, "detectable"] > smallest_difference(values)
