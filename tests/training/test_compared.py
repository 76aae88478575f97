from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from captum_astro.metrics import holm
from captum_astro.training.compared import markdown, summary

FULL, WORSE, ALIKE = [0.51, 0.53, 0.52], [0.44, 0.47, 0.45], [0.53, 0.52, 0.51]


def _runs(**accuracies: list[float]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"variant": name, "seed": seed, "epochs_to": None, "accuracy": value, "parameters": 10, "seconds": 1.0 + seed}
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed() -> None:
    shuffled = _runs(full=FULL, worse=WORSE, alike=ALIKE).iloc[[0, 1, 2, 5, 3, 4, 8, 7, 6]]
    full, worse, alike = summary(shuffled, "accuracy").to_dict("records")
    assert math.isnan(full["difference"])
    tests = [stats.ttest_rel(values, FULL) for values in (WORSE, ALIKE)]
    for row, test, p in zip((worse, alike), tests, holm([test.pvalue for test in tests]), strict=True):
        interval = test.confidence_interval()
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(interval))
        assert row["p_holm"] == pytest.approx(p)
    assert worse["difference"] == pytest.approx(-0.2 / 3)
    assert (worse["runs"], worse["seconds"]) == (3, 2.0)


def test_only_seeds_that_both_variants_have_are_paired() -> None:
    row = summary(_runs(full=FULL, part=WORSE[:2]), "accuracy").iloc[1]
    assert row["difference"] == pytest.approx(-0.065)
    assert row["runs"] == 2


def test_one_run_says_how_far_but_not_how_surely() -> None:
    table = summary(_runs(full=[0.5], other=[0.4]), "accuracy")
    assert table["difference"].iloc[1] == pytest.approx(-0.1)
    assert table[["accuracy_low", "difference_low", "p_holm"]].iloc[1].isna().all()
    assert "| other | 40.0% | -10.0 | 10 | 1 |" in markdown(table, "accuracy", None)


def test_epochs_are_those_of_the_runs_that_came_there() -> None:
    runs = _runs(full=FULL, worse=WORSE).assign(epochs_to=[2.0, 3.0, None, None, None, None])
    table = summary(runs, "accuracy")
    full, worse = table.to_dict("records")
    assert (full["reached"], full["epochs"], full["epochs_low"], full["epochs_high"]) == (2, 2.5, 2, 3)
    assert worse["reached"] == 0
    assert math.isnan(worse["epochs"])
    text = markdown(table, "accuracy", 0.5)
    assert "| epochs to 50.0% (range), reached |" in text
    assert "| 2.5 (2.0 .. 3.0), 2 of 3 |" in text
    assert "| 0 of 3 |" in text


def test_the_table_marks_what_is_not_certain() -> None:
    text = markdown(summary(_runs(full=FULL, worse=WORSE, alike=ALIKE), "accuracy"), "accuracy", None).splitlines()
    assert text[0].startswith("| variant | test accuracy (95 %) | difference from full, points (95 %) | parameters |")
    assert text[2] == "| full | 52.0% (49.5% .. 54.5%) |  | 10 | 2 |"
    assert text[3] == "| worse | 45.3% (41.5% .. 49.1%) | -6.7 (-8.1 .. -5.2), p = 0.005 | 10 | 2 |"
    assert text[4] == "| alike | 52.0% (49.5% .. 54.5%) | ~+0.0 (-4.3 .. +4.3), p = 1.00 | 10 | 2 |"


def test_perplexities_are_no_percentages() -> None:
    runs = _runs(full=[120.0, 130.0], other=[150.0, 170.0]).rename(columns={"accuracy": "perplexity"})
    text = markdown(summary(runs.assign(epochs_to=[4.0, 5.0, None, None]), "perplexity"), "perplexity", 150)
    assert "| test perplexity (95 %) | difference from full (95 %) | epochs to 150.0 (range), reached |" in text
    assert "+35.0 (" in text
