from __future__ import annotations

import re

import pandas as pd
import pytest

from captum_astro.evaluation.report.curves import BOTTOM, LEFT, RIGHT, TOP, charts
from captum_astro.evaluation.report.html import render
from captum_astro.evaluation.run.rows import map_table

ACCURACY, PROBABILITY = "top-1 accuracy, %", "probability, %"


def _rows(metric: str, curves: dict[tuple[str, str], list[list[float]]]) -> pd.DataFrame:
    found = [
        (sample, "vit", method, metric, explained, 0.5, curve)
        for (method, explained), own in curves.items()
        for sample, curve in enumerate(own)
    ]
    return pd.DataFrame(found, columns=["sample", "model", "method", "metric", "explained", "value", "curve"])


def test_line_band_and_values() -> None:
    rows = _rows("positive AUC", {("LRP", "predicted"): [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]})
    [chart] = charts(rows, ["VTranM", "LRP"], 200)
    [panel] = chart.panels
    [line] = panel.lines
    middle, half = (LEFT + RIGHT) // 2, (TOP + BOTTOM) // 2
    assert (chart.axis, panel.levels, line.method) == (ACCURACY, ["0", "50", "100"], "LRP")
    assert line.values == [("100.0", "[100.0, 100.0]"), ("50.0", "[0.0, 100.0]"), ("0.0", "[0.0, 0.0]")]
    assert line.path == f"M{LEFT},{TOP}L{middle},{half}L{RIGHT},{BOTTOM}"
    high, low = f"M{LEFT},{TOP}L{middle},{TOP}L{RIGHT},{BOTTOM}", f"L{RIGHT},{BOTTOM}L{middle},{BOTTOM}L{LEFT},{TOP}"
    assert line.band == high + low


@pytest.mark.parametrize(("length", "levels"), [(1, 1), (2, 2), (11, 11), (12, 7), (21, 11), (101, 11), (1000, 11)])
def test_a_table_of_values_is_short_and_ends_where_the_curve_does(length: int, levels: int) -> None:
    curve = [1 - i / length for i in range(length)]
    [chart] = charts(_rows("AOPC", {("LRP", "predicted"): [curve, curve]}), ["LRP"], 5)
    [panel] = chart.panels
    assert len(panel.levels) == len(panel.lines[0].values) == levels
    assert panel.lines[0].values[0][0] == "100.0"
    assert panel.lines[0].values[-1][0] == f"{100 * curve[-1]:.1f}"


@pytest.mark.parametrize(("other", "titles"), [(0.0, ["predicted = true"]), (0.25, ["predicted", "true"])])
def test_equal_curves_of_both_classes_are_drawn_once(other: float, titles: list[str]) -> None:
    curves = {("LRP", "predicted"): [[1.0, 0.0]] * 2, ("LRP", "true"): [[1.0, other]] * 2}
    [chart] = charts(_rows("AOPC", curves), ["LRP"], 5)
    assert [panel.title for panel in chart.panels] == [
        f"Most important pixels first; probability of the {title} class" for title in titles
    ]


def test_curves_with_one_axis_share_a_chart() -> None:
    kinds = ("positive AUC", "negative AUC", "AOPC")
    rows = pd.concat([_rows(kind, {("LRP", "predicted"): [[1.0, 0.0]] * 2}) for kind in kinds])
    found = charts(rows, ["LRP"], 5)
    assert len(found) == 2
    assert {chart.axis: len(chart.panels) for chart in found} == {ACCURACY: 2, PROBABILITY: 1}


@pytest.mark.parametrize(
    ("metric", "below"),
    [
        ("AOPC", "pixels removed, %"),
        ("negative AUC", "pixels removed, %"),
        ("insertion", "pixels inserted, %"),
        ("blurred deletion", "pixels blurred, %"),
        ("blurred insertion", "pixels made sharp, %"),
        ("cascading randomisation", "depth from output (0) to input (100)"),
        ("layer randomisation", "depth from output (0) to input (100)"),
    ],
)
def test_what_the_horizontal_axis_is(metric: str, below: str) -> None:
    rows = _rows(metric, {("LRP", "predicted"): [[1.0, 0.0]] * 2}).assign(error=None, reason=None)
    page = render(rows, map_table([]).to_pandas(), {}, bootstrap=5)
    assert re.findall(r'<th scope="col">([^<]* (?:%|\(100\)))</th>', page) == [below]
    assert f'text-anchor="middle">{below}</text>' in page
