"""Scores in the terminal: every method and metric, at any width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captum_astro.cli._scores import print_scores
from captum_astro.cli._terminal import console
from captum_astro.evaluation.run.rows import map_table
from captum_astro.metrics.registry import all_metrics
from tests.evaluation import synthetic


@pytest.mark.parametrize("width", [20, 80, 150])
def test_scores_are_cut_at_no_width(width: int, tmp_path: Path, monkeypatch, capsys) -> None:
    methods = ("Random", "VTranM:output=logit")
    folder = synthetic.write(tmp_path / "run", synthetic.rows(3, methods), map_table([]).to_pandas(), {})
    monkeypatch.setattr(console, "_width", width)
    print_scores(folder)
    out = capsys.readouterr().out
    tables = re.split(r"\n\n", out)
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert all(method in table for table in tables for method in methods)
    assert width == 20 or max(map(len, out.splitlines())) <= width
    names = [metric.name for metric in all_metrics().values() if not metric.of_model]
    assert all(re.search(rf"(^|  ){re.escape(name)}(  |$)", out, re.MULTILINE) for name in names)


def test_each_model_has_its_tables_with_the_means(tmp_path: Path, monkeypatch, capsys) -> None:
    rows = synthetic.rows(4, ("Random", "VTranM"), models=("vit", "swin"), metrics=("positive AUC",))
    folder = synthetic.write(tmp_path / "run", rows, map_table([]).to_pandas(), {})
    monkeypatch.setattr(console, "_width", 120)
    print_scores(folder)
    out = capsys.readouterr().out
    for model in ("vit", "swin"):
        _, text = out.split(f"{model}, ", 1)
        for method in ("Random", "VTranM"):
            own = rows[(rows["model"] == model) & (rows["method"] == method) & (rows["explained"] == "predicted")]
            line = next(line for line in text.splitlines() if line.startswith(method))
            assert line.split()[1] == f"{100 * own['value'].mean():.1f}"


def test_signs_are_ascii(tmp_path: Path, capsys) -> None:
    rows = synthetic.rows(3, ("Random", "VTranM"), metrics=("SaCo",))
    rows["value"] = -rows["value"].abs()
    print_scores(synthetic.write(tmp_path / "run", rows, map_table([]).to_pandas(), {}))
    out = capsys.readouterr().out
    assert re.search(r"VTranM +-0\.", out)
    assert "\N{MINUS SIGN}" not in out
