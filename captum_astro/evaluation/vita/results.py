"""Scores of a search or an evaluation, and the tables derived from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from captum_astro.evaluation.vita.power import smallest_difference
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.metrics.statistics import PairedComparison, compare_many

PLAIN = -1  # the index of the unmodulated model among the settings
Split = Literal["search", "report"]


@dataclass(frozen=True)
class Results:
    """The scores of every sample under every setting.

    Attributes:
        scores: Columns ``sample`` (its index), ``name``, ``setting`` (its index, -1 for the plain model), ``method``,
            ``metric`` and ``value``. The metrics ``same class`` and ``accuracy`` belong to the model, method ``-``.
        settings: The settings by index.
        controls: The scores of the controls, with the columns ``control`` and ``width`` more, as
            `captum_astro.evaluation.vita.control_scores.control_scores` returns them; empty if there are none.
    """

    scores: pd.DataFrame
    settings: list[Setting]
    controls: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def of(cls, rows: pd.DataFrame, settings: list[Setting]) -> Results:
        """The results from the rows of all scores, those of controls among them."""
        own = rows["control"] == ""
        scores = rows[own].drop(columns=["control", "width"]).reset_index(drop=True)
        return cls(scores, settings, rows[~own].reset_index(drop=True))

    def split(self, which: Split) -> pd.DataFrame:
        """The scores of the even samples, for selection, or of the odd ones, for reporting."""
        return half(self.scores, which)

    def table(self, which: Split = "search") -> pd.DataFrame:
        """One row per setting, method and metric: the setting's values, the number of samples, and their mean."""
        grouped = self.split(which).groupby(["setting", "method", "metric"], sort=True)["value"]
        table = grouped.agg(n="count", mean="mean").reset_index()
        described = [{"setting": PLAIN}] + [{"setting": i, **s.keywords} for i, s in enumerate(self.settings)]
        return pd.DataFrame(described).merge(table, on="setting", how="right")

    def best(self) -> pd.DataFrame:
        """For each method and metric: the best setting on the even samples, compared with the plain model on the odd.

        Returns:
            Columns ``method``, ``metric``, ``setting``, ``n``, ``left_out`` (samples without a value), ``plain`` and
            ``modulated`` (means), ``difference`` with its 95 % interval ``low`` and ``high``, ``effect``
            (rank-biserial), ``p`` (Wilcoxon), ``p_holm`` (over the table), ``same_class`` and ``accuracy`` of the
            modulated model, ``plain_accuracy``, and ``detectable``, the smallest difference found with 80 % (see
            `captum_astro.evaluation.vita.power`). A metric without a value on the even samples has no row.

        Raises:
            ValueError: If no metric has one.
        """
        chosen = self.table("search")
        chosen = chosen[(chosen["setting"] != PLAIN) & (chosen["method"] != "-")]
        chosen = chosen.dropna(subset=["mean"])
        if chosen.empty:
            raise ValueError(
                "No setting can be chosen: no metric has a value on the even samples, as their human maps are constant "
                "or their maps not finite."
            )
        top = chosen.loc[chosen.groupby(["method", "metric"])["mean"].idxmax()]
        picked = {(r.method, r.metric): int(r.setting) for r in top.itertuples()}
        return compared(self.split("report"), picked)

    def compare(self, setting: int = 0) -> pd.DataFrame:
        """One setting against the plain model over all samples, for every method and metric: columns as in `best`."""
        pairs = self.scores.loc[self.scores["method"] != "-", ["method", "metric"]].drop_duplicates()
        return compared(self.scores, {(r.method, r.metric): setting for r in pairs.itertuples()})


def half(scores: pd.DataFrame, which: Split) -> pd.DataFrame:
    """The rows of the even samples, for selection, or of the odd ones, for reporting."""
    return scores[scores["sample"] % 2 == (which == "report")]


def compared(scores: pd.DataFrame, picked: dict[tuple[str, str], int]) -> pd.DataFrame:
    """Each method's and metric's selected setting against the plain model, sample by sample.

    Args:
        scores: As in `Results`.
        picked: The index of the setting for each method and metric.
    """
    wide = scores.pivot(index="sample", columns=["setting", "method", "metric"], values="value")
    pairs = {
        f"{method}, {metric}": (wide[setting, method, metric], wide[PLAIN, method, metric])
        for (method, metric), setting in picked.items()
    }
    # a metric may be undefined for all samples, for example if every human map is constant
    found = compare_many({name: pair for name, pair in pairs.items() if (pair[0] + pair[1]).notna().any()})
    none = math.nan
    nothing = PairedComparison(0, len(wide), none, none, none, (none, none), none, none, none)
    rows = []
    for (method, metric), setting in picked.items():
        one = found.get(f"{method}, {metric}", nothing)
        row = {
            "method": method,
            "metric": metric,
            "setting": setting,
            "n": one.n,
            "left_out": one.left_out,
            "plain": one.mean_b,
            "modulated": one.mean_a,
            "difference": one.difference,
            "low": one.interval[0],
            "high": one.interval[1],
            "effect": one.effect_size,
            "p": one.p_value,
            "p_holm": one.p_holm,
            "same_class": wide[setting, "-", "same class"].mean(),
        }
        if (PLAIN, "-", "accuracy") in wide:
            row |= {
                "accuracy": wide[setting, "-", "accuracy"].mean(),
                "plain_accuracy": wide[PLAIN, "-", "accuracy"].mean(),
            }
        pair = pairs[f"{method}, {metric}"]
        rows.append(row | {"detectable": smallest_difference(pair[0] - pair[1], max(1, len(found)))})
    return pd.DataFrame(rows)
