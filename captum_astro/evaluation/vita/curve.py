"""What agreement with people costs: it and the model's accuracy over alpha and beta."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from captum_astro.evaluation.vita.results import PLAIN, Results
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.metrics.statistics import bootstrap_interval


def accuracy_curve(results: Results, best: pd.DataFrame) -> pd.DataFrame:
    """Agreement and accuracy on the odd samples, for every alpha and beta that was tried with the selected setting.

    Args:
        results: Of a search.
        best: What it selected, as `Results.best` returns it; its layer, k, tau and phi are kept.

    Returns:
        A row for each method, metric, alpha and beta: ``method``, ``metric``, ``layer``, ``k``, ``tau``, ``phi``,
        ``alpha``, ``beta``, ``n``, ``mean`` with its 95 % bootstrap interval ``low`` and ``high``, ``same_class``,
        ``accuracy`` (NaN without labels). The plain model's row comes first, with alpha and beta 1: both leave it as it
        is.
    """
    scores = results.split("report")
    wide = scores.pivot(index="sample", columns=["setting", "method", "metric"], values="value")
    rows = []
    for one in best.itertuples():
        chosen = results.settings[int(str(one.setting))]
        known = {"method": one.method, "metric": one.metric, "layer": chosen.layer}
        known |= {name: getattr(chosen.modulation, name) for name in ("k", "tau", "phi")}
        tried = sorted(
            (setting.modulation.alpha, -setting.modulation.beta, number)
            for number, setting in enumerate(results.settings)
            if _but_strength(setting) == _but_strength(chosen)
        )
        for alpha, beta, number in [(1.0, -1.0, PLAIN), *tried]:
            values = wide[number, one.method, one.metric].dropna()
            low, high = bootstrap_interval(values) if len(values) else (math.nan, math.nan)
            row = {**known, "alpha": alpha, "beta": -beta, "n": len(values), "mean": values.mean()}
            row |= {"low": low, "high": high, "same_class": wide[number, "-", "same class"].mean()}
            labelled = (number, "-", "accuracy") in wide
            rows.append(row | {"accuracy": wide[number, "-", "accuracy"].mean() if labelled else math.nan})
    return pd.DataFrame(rows)


def _but_strength(setting: Setting) -> Setting:
    return replace(setting, modulation=replace(setting.modulation, alpha=1.0, beta=1.0))
