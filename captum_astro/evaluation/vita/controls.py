"""The gain of a setting beside what else could explain it: the table of the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from captum_astro.evaluation.vita.control_scores import ANOTHER, BLURRED, CENTRE
from captum_astro.evaluation.vita.power import smallest_difference
from captum_astro.evaluation.vita.results import PLAIN, Results, half
from captum_astro.evaluation.vita.surviving import surviving
from captum_astro.metrics.statistics import compare_many

GAIN, KEPT = "plain", "class kept"
_SURVIVING = ["surviving", "surviving_low", "surviving_high"]
_COLUMNS = [
    *("method", "metric", "control", "width", "n", "modulated", "beside", "difference", "low", "high", "effect"),
    *("p", "p_holm", "detectable", *_SURVIVING),
]


class _Pair(NamedTuple):
    """The scores by sample of the modulated model's maps and of what they are compared with, and a Gaussian's width."""

    modulated: pd.Series
    beside: pd.Series
    width: float = math.nan


def control_table(found: Mapping[tuple[str, str], Results]) -> pd.DataFrame:
    """The controls of each method and metric, on the odd samples; widths are selected on the even ones.

    A row for each control. ``plain``: the modulated model's map against the plain one's. ``centre``: against a Gaussian
    at the image's centre. ``blurred``: against the plain map blurred. ``another``: the gain with the image's own human
    map against the gain with the human map of another photograph. ``class kept``: as ``plain``, on the images whose
    class the modulated model keeps.

    Args:
        found: For each method and metric the evaluation of its setting.

    Returns:
        Columns ``method``, ``metric``, ``control``, ``width`` (as a fraction of the side length), ``n``, ``modulated``
        and ``beside`` (means), ``difference`` with its 95 % interval ``low`` and ``high``, ``effect``, ``p``
        (Wilcoxon), ``p_holm`` (over the table), ``detectable`` (as in `Results.best`), and for ``class kept``
        ``surviving`` (see `surviving`) with its interval ``surviving_low`` and ``surviving_high``. A comparison without
        a value has no row.
    """
    pairs = {
        (method, metric, control): pair
        for (method, metric), results in found.items()
        for control, pair in _pairs(results, method, metric).items()
        if (pair.modulated + pair.beside).notna().any()
    }
    compared = compare_many({" ".join(key): (pair.modulated, pair.beside) for key, pair in pairs.items()})
    rows = []
    for (method, metric, control), pair in pairs.items():
        one = compared[f"{method} {metric} {control}"]
        left = (math.nan,) * 3
        if control == KEPT:
            gain = pairs[method, metric, GAIN]
            left = surviving(gain.modulated - gain.beside, pair.modulated.reindex(gain.modulated.index).notna())
        row = {"method": method, "metric": metric, "control": control, "width": pair.width, "n": one.n}
        row |= {"modulated": one.mean_a, "beside": one.mean_b, "difference": one.difference}
        row |= {"low": one.interval[0], "high": one.interval[1], "effect": one.effect_size}
        row |= {"p": one.p_value, "p_holm": one.p_holm}
        row["detectable"] = smallest_difference(pair.modulated - pair.beside, len(pairs))
        rows.append(row | dict(zip(_SURVIVING, left, strict=True)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _pairs(results: Results, method: str, metric: str) -> dict[str, _Pair]:
    scores, controls = results.split("report"), results.controls[results.controls["metric"] == metric]
    modulated, plain = (_of(scores, setting, method, metric) for setting in (0, PLAIN))
    others = controls[(controls["control"] == ANOTHER) & (controls["method"] == method)]
    elsewhere = [_of(half(others, "report"), setting, method, metric) for setting in (0, PLAIN)]
    keeps = _of(scores, 0, "-", "same class") == 1
    return {
        GAIN: _Pair(modulated, plain),
        CENTRE: _Pair(modulated, *_best(controls[controls["control"] == CENTRE])),
        BLURRED: _Pair(modulated, *_best(controls[(controls["control"] == BLURRED) & (controls["method"] == method)])),
        ANOTHER: _Pair(modulated - plain, elsewhere[0] - elsewhere[1]),
        KEPT: _Pair(modulated[keeps], plain[keeps]),
    }


def _of(scores: pd.DataFrame, setting: int, method: str, metric: str) -> pd.Series:
    chosen = (scores["setting"] == setting) & (scores["method"] == method) & (scores["metric"] == metric)
    return scores[chosen].set_index("sample")["value"].sort_index()


def _best(control: pd.DataFrame) -> tuple[pd.Series, float]:
    """The scores on the odd samples at the width with the best mean on the even ones, and that width."""
    means = half(control, "search").groupby("width")["value"].mean()
    if means.isna().all():  # nothing to choose by: the comparison has no value
        return control.set_index("sample")["value"].iloc[:0], math.nan
    width = float(means.idxmax())
    chosen = half(control, "report")
    return chosen[chosen["width"] == width].set_index("sample")["value"].sort_index(), width
