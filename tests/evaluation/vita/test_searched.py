"""What a search writes beside its selection: the controls, and the curve of accuracy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from captum_astro.evaluation.vita.config import SearchConfig
from captum_astro.evaluation.vita.controls import control_table
from captum_astro.evaluation.vita.curve import accuracy_curve
from captum_astro.evaluation.vita.curve_figure import write_curves
from captum_astro.evaluation.vita.results import PLAIN, Results
from captum_astro.evaluation.vita.searched import selected_controls
from captum_astro.evaluation.vita.settings import Setting, at_layers, grid
from captum_astro.functional.astrocyte import Modulation
from captum_astro.metrics.statistics import bootstrap_interval
from tests.evaluation.vita.making import GRID, evaluated, make_model, make_samples


def test_each_selected_setting_has_its_controls(tmp_path: Path) -> None:
    model, samples, settings = make_model("cls"), make_samples(4), grid(**GRID)
    best = pd.DataFrame({"method": ["TokenGradCAM", "TokenGradCAMPlusPlus"], "metric": "dice", "setting": [0, 3]})
    config = SearchConfig(metrics=("dice",), batch_size=4)
    found = selected_controls(model, lambda: iter(samples), best, settings, config, out=tmp_path)
    given: Any = {"methods": list(config.methods), "metrics": ["dice"], "batch_size": 4}
    own = [evaluated(model, samples, settings[n], **given) for n in (0, 3)]
    expected = control_table({("TokenGradCAM", "dice"): own[0], ("TokenGradCAMPlusPlus", "dice"): own[1]})
    pd.testing.assert_frame_equal(found, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["setting-0", "setting-3"]
    with pytest.raises(ValueError, match="search without cam_layer"):
        selected_controls(model, lambda: samples, best, settings, SearchConfig(cam_layer="blocks.1.norm1"))


def _results() -> Results:
    """Two layers; the values of a setting are its index in tenths, on the odd samples 1 and 3 more by .01 and .03."""
    settings = at_layers(grid(k=[4], tau=[2], phi=[0], alpha=[1.5, 2], beta=[0.1, 0.5]), ["a", "b"])
    settings.append(Setting(Modulation(6, 2, 0, 1.5, 0.1), "b"))  # another k
    rows: list[Any] = []
    for number in range(PLAIN, len(settings)):
        for i in range(4):
            rows.append((i, number, "A", "dice", number / 10 + i / 100))
            rows.append((i, number, "-", "same class", float(i < 2)))
            rows.append((i, number, "-", "accuracy", float(number < 5)))
    return Results(pd.DataFrame(rows, columns=["sample", "setting", "method", "metric", "value"]), settings)


BEST = pd.DataFrame({"method": ["A"], "metric": ["dice"], "setting": [5]})


def test_the_curve_keeps_all_but_alpha_and_beta() -> None:
    table = accuracy_curve(_results(), BEST)
    assert list(zip(table["alpha"], table["beta"], strict=True)) == [(1, 1), (1.5, 0.5), (1.5, 0.1), (2, 0.5), (2, 0.1)]
    assert table["mean"].tolist() == pytest.approx([n / 10 + 0.02 for n in (PLAIN, 5, 4, 7, 6)])
    assert (table["low"][1], table["high"][1]) == bootstrap_interval([0.51, 0.53])
    assert table["same_class"].tolist() == [0.5] * 5
    assert table["accuracy"].tolist() == [1, 0, 1, 0, 0]
    assert set(table["layer"]) == {"b"}
    assert set(table["n"]) == {2}


def test_the_curve_without_labels_and_without_values() -> None:
    results = _results()
    scores = results.scores[results.scores["metric"] != "accuracy"].copy()
    scores.loc[scores["method"] == "A", "value"] = math.nan
    table = accuracy_curve(Results(scores, results.settings), BEST)
    assert table["accuracy"].isna().all()
    assert table["mean"].isna().all()
    assert set(table["n"]) == {0}


@pytest.mark.parametrize("labelled", [True, False])
def test_the_figure_is_the_same_each_time(tmp_path: Path, labelled: bool) -> None:
    curve = accuracy_curve(_results(), BEST)
    if not labelled:
        curve["accuracy"] = math.nan
    for name in ("a.svg", "b.svg"):
        write_curves(curve, tmp_path / name)
    found = (tmp_path / "a.svg").read_text()
    assert found == (tmp_path / "b.svg").read_text()
    assert f"<!-- {'accuracy' if labelled else 'class kept'} (at each point: alpha) -->" in found
    assert "<!-- beta 0.1 -->" in found
