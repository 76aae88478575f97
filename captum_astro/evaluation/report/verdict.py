"""The first paragraph of a report: which method wins, by how much, and whether that is certain."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from captum_astro.evaluation.report.grid import LEVEL, number, p_value
from captum_astro.evaluation.report.order import folded
from captum_astro.metrics.registry import metric_named
from captum_astro.wording import counted

_NAMED = 3  # methods of which the mean rank is given


@dataclass(frozen=True)
class Verdict:
    """Who wins on a model: the answer, and the sentences with its figures."""

    answer: str
    figures: list[str]


@dataclass(frozen=True)
class Lead:
    """The best method by one score, and how far it is ahead.

    Attributes:
        score: The metric, with the explained class if there are two.
        best: The best method.
        gap: Text: how far ahead of which method, with the p-value unless it is certain.
        certain: Whether it is better than every other method at a corrected p below `LEVEL`.
    """

    score: str
    best: str
    gap: str
    certain: bool


def verdict(ranking: pd.DataFrame, against_best: pd.DataFrame) -> Verdict | None:
    """The verdict on one model; None if no two methods have a score.

    Args:
        ranking: Rows of one model from `captum_astro.evaluation.analysis.ranking`.
        against_best: Rows of the same model from `captum_astro.evaluation.analysis.comparisons` against None.

    Example:
        >>> from captum_astro.evaluation.analysis import comparisons, ranking
        >>> rows = pd.DataFrame({"sample": [*range(6)] * 2, "model": "vit", "method": ["VTranM"] * 6 + ["LRP"] * 6,
        ...                      "metric": "SaCo", "explained": "predicted", "value": [0.5] * 6 + [0.25] * 6})
        >>> found = verdict(ranking(rows), comparisons(rows, None))
        >>> found.answer
        'VTranM wins, for certain: it is the best by SaCo.'
        >>> found.figures[1]
        'Certain: VTranM by SaCo (0.250 ahead of LRP).'
    """
    found = leads(against_best)
    if not found or ranking.empty:
        return None
    places = folded(ranking)[0].pivot_table(index="method", columns=["metric", "explained"], values="place")
    means = places.fillna(len(places)).mean(axis=1).sort_values(kind="stable")
    first = [str(name) for name in means.index[means <= means.iloc[0] + 1e-9]]
    named = ", ".join(f"{name} {value:.1f}" for name, value in means.iloc[: max(_NAMED, len(first))].items())
    images = counted(int(against_best["n"].max()), "image")
    figures = [f"Mean rank of {len(means)} methods over {counted(len(found), 'score')} on {images}: {named}."]
    for word, certain in (("Certain", True), ("Not certain", False)):
        if own := [f"{lead.best} by {lead.score} ({lead.gap})" for lead in found if lead.certain == certain]:
            figures.append(f"{word}: {'; '.join(own)}.")
    return Verdict(_answer(first, found), figures)


def leads(against_best: pd.DataFrame) -> list[Lead]:
    """The best method by each score, from comparisons of all others with it."""
    table, both = folded(against_best[against_best["difference"].notna()])
    kinds = {metric: own["explained"].nunique() for metric, own in table.groupby("metric")}
    found = []
    for (metric, explained), own in table.groupby(["metric", "explained"], sort=False):
        info = metric_named(str(metric))
        # a pooled metric may differ in the other direction than most images do
        sure = (own["p_holm"] < LEVEL) & (own["difference"] * own["effect"] > 0)
        behind = -own["difference"] * info.direction
        rival = own.loc[(behind if sure.all() else behind[~sure]).idxmin()]
        points = " points" if info.percent else ""
        gap = f"{number(abs(rival['difference']), info)}{points} ahead of {rival['method']}"
        score = f"{metric} ({explained} class)" if kinds[metric] > 1 and metric not in both else str(metric)
        certain = bool(sure.all())
        found.append(
            Lead(score, str(rival["against"]), gap if certain else f"{gap}, {p_value(rival['p_holm'])}", certain)
        )
    return found


def _answer(first: list[str], found: list[Lead]) -> str:
    if len(first) > 1:
        return f"No method wins: {' and '.join(first)} have the same mean rank."
    name, total = first[0], counted(len(found), "score")
    best = [lead for lead in found if lead.best == name]
    certain = sum(lead.certain for lead in best)
    which = f"by {best[0].score}" if len(found) == 1 and best else f"by {len(best)} of {total}"
    if not best:
        return f"{name} has the best mean rank, but is the best by none of {total}: no win is certain."
    if certain == len(found):
        return f"{name} wins, for certain: it is the best {which}."
    if certain:
        return f"{name} is ahead: it is the best {which}, for certain by {certain}."
    return f"{name} is ahead, but it is not certain that it wins: it is the best {which}, by none for certain."
