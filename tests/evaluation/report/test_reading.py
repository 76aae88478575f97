"""What a reader of the page is promised: order, one look per method, explanations, classes."""

from __future__ import annotations

import re
from functools import cache

import pandas as pd
import pytest

from captum_astro.evaluation.report.html import render
from captum_astro.evaluation.run.rows import map_table
from captum_astro.metrics.registry import all_metrics
from tests.evaluation import synthetic

METHODS = tuple(f"Method{i:02}" for i in range(15))
NO_MAPS = map_table([]).to_pandas()
SECTIONS = ("Scores", "Curves", "Compared with", "Ranks", "Examples")


@cache
def _page() -> str:
    """Fifteen methods on two models; the later the better."""
    models = ("vit", "deit")
    rows = synthetic.rows(12, METHODS, models, ("positive AUC", "energy inside", "SaCo"))
    return render(rows, synthetic.maps(4, METHODS, models, 14), {}, bootstrap=20)


@cache
def _folded(equal: bool) -> str:
    rows = synthetic.rows(8, metrics=("positive AUC", "energy inside"))
    if equal:
        own = rows[rows["explained"] == "predicted"]
        rows = pd.concat([own, own.assign(explained="true")], ignore_index=True)
    return render(rows, NO_MAPS, {}, bootstrap=20)


def _parts(page: str) -> list[str]:
    """Each section of each model."""
    return re.split("|".join(f"<h3>{name}" for name in SECTIONS), page)[1:]


def _plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).strip()


def test_the_first_paragraph_says_who_wins() -> None:
    first = re.findall(r"<p\b.*?</p>", _page(), re.DOTALL)[:2]
    for model, paragraph in zip(("deit", "vit"), first, strict=True):
        assert _plain(paragraph).startswith(f"{model}: Method14 is ahead")
        assert "on 12 images" in paragraph
        assert "certain" in paragraph
    alone = render(synthetic.rows(2, ("LRP",), metrics=("SaCo",)), NO_MAPS, {}, bootstrap=5)
    assert "There is no winner" in re.findall(r"<p\b.*?</p>", alone, re.DOTALL)[0]


def test_rows_are_in_the_order_of_ranks() -> None:
    rows = synthetic.rows(60, metrics=("positive AUC", "energy inside"), seed=3)
    page = render(rows, NO_MAPS, {}, bootstrap=20)
    tables = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    assert len(tables) == 6
    for table in tables:
        names = re.findall(r'<th scope="row" data-value="(\w+)"', table)
        expected = ["VTranM", "Random", "LRP", "AttentionRollout"]  # the rows are made so
        assert names == [name for name in expected if name in names]


def test_a_method_looks_the_same_everywhere() -> None:
    page = _page()
    looks: dict[str, set[str]] = {name: set() for name in METHODS}
    for place, part in enumerate(_parts(page)):
        seen = re.findall(r'<svg class="swatch"[^>]*>(.*?)</svg>\s*((?:Method|<wbr>|\d)+)', part)
        found = {name.replace("<wbr>", "") for _, name in seen}
        section = SECTIONS[place % len(SECTIONS)]
        assert found >= set(METHODS[section == "Compared with" :]), section  # the first is the one compared with
        for drawn, name in seen:
            looks[name.replace("<wbr>", "")].add(drawn)
    assert all(len(drawn) == 1 for drawn in looks.values())
    assert len(set.union(*looks.values())) == len(METHODS)
    for name in METHODS:  # and the curve is drawn like its legend
        [own] = looks[name]
        colour, dash = re.findall(r'stroke="([^"]+)".*?stroke-dasharray="([^"]*)"', own)[0]
        lines = re.findall(rf"<title>{name}</title>.*?</g>", page, re.DOTALL)
        assert len(lines) == 2 * 2  # models, explained classes
        for line in lines:
            assert f'fill="none" stroke="{colour}"' in line
            assert f'stroke-dasharray="{dash}"' in line
            assert re.findall(r'class="band" d="M[^"]+" fill="([^"]+)"', line) == [colour]


def test_curves_have_their_values_beneath_and_their_legend_beside_them() -> None:
    charts = re.findall(r'<div class="chart">(.*?)</section>', _page(), re.DOTALL)
    assert len(charts) == 2  # one a model
    for chart in charts:
        assert chart.count('<ul class="legend">') == 1
        assert chart.count('<details class="values">') == chart.count("</figcaption>") == 2
    style = re.findall(r"<style>.*?</style>", _page(), re.DOTALL)[0]
    printed = style[style.index("@media print") :]
    assert re.search(r"[^}]*\.chart[^{]*\{ break-inside: avoid; \}", printed)


@pytest.mark.parametrize("equal", [True, False])
def test_equal_columns_of_both_classes_are_one(equal: bool) -> None:
    page = _folded(equal)
    heads = re.findall(r"<small>((?:predicted|true)[^<]*)</small>", page)
    shown = {head.removesuffix(", %") for head in heads}
    assert shown == ({"predicted = true"} if equal else {"predicted", "true"})
    assert page.count("<figure>") == (1 if equal else 2)


def test_each_metric_is_explained_on_hover_and_at_the_end() -> None:
    rows = synthetic.rows(2, metrics=tuple(all_metrics()))
    page = render(rows, NO_MAPS, {}, bootstrap=5)
    glossary = page[page.index('<dl class="glossary">') :]
    for name, info in all_metrics().items():
        meaning = info.meaning.replace("'", "&#39;")
        assert f"<dt>{name}</dt><dd>{meaning}" in glossary
        assert info.of_model or f'<abbr title="{meaning}">{name}</abbr>' in page


def test_examples_name_both_classes() -> None:
    maps = synthetic.maps(4)
    rows = synthetic.rows(4, metrics=("accuracy", "energy inside"))
    page = _plain(render(rows, maps, {}, bootstrap=5))
    assert page.count("predicted and true class: 3 three") == 2
    assert page.count("predicted class: 3 three; true class: 8 eight") == 2
    page = _plain(render(rows, maps.assign(true=None), {}, bootstrap=5))
    assert page.count("predicted class: 3 three ") == 4
