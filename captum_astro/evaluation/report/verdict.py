"""The first paragraph of a report: which method wins, by how much, and whether that is certain."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from captum_astro.evaluation.report.grid import LEVEL, number
from captum_astro.evaluation.report.order import TRUE, folded
from captum_astro.metrics.registry import metric_named
from captum_astro.wording import counted, p_value

_NAMED = 3  # methods of which the mean rank is given
_LISTED = 4  # certain leads that are listed; all are in the table


@dataclass(frozen=True)
class Lead:
    """The best method by one score, and how far it is ahead.

    Attributes:
        score: The metric, with the explained class if there are two.
        best: The best method.
        rival: The next method; if the lead is not certain, the next of those that may be as good.
        gap: How far it is ahead of the rival, as text.
        p: The corrected p-value of this difference, as text.
        certain: Whether it is better than every other method at a corrected p below `LEVEL`.
    """

    score: str
    best: str
    rival: str
    gap: str
    p: str
    certain: bool


@dataclass(frozen=True)
class Verdict:
    """Who wins on a model: the answer, the sentences with its figures, and the lead by each score."""

    answer: str
    figures: list[str]
    leads: list[Lead]


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
        'Certain: VTranM by SaCo, 0.250 ahead of LRP.'
    """
    found = leads(against_best)
    if not found or ranking.empty:
        return None
    # by the scores: different ones may have equal ranks
    _, both = folded(against_best[against_best["difference"].notna()])
    own = ranking[~(ranking["metric"].isin(both) & (ranking["explained"] == TRUE))]
    places = own.pivot_table(index="method", columns=["metric", "explained"], values="place")
    means = places.fillna(len(places)).mean(axis=1).sort_values(kind="stable")
    first = [str(name) for name in means.index[means <= means.iloc[0] + 1e-9]]
    named = ", ".join(f"{name} {value:.1f}" for name, value in means.iloc[: max(_NAMED, len(first))].items())
    images = counted(int(against_best["n"].max()), "image")
    figures = [f"Mean rank of {len(means)} methods over {counted(len(found), 'score')} on {images}: {named}."]
    certain = sorted((lead for lead in found if lead.certain), key=lambda lead: lead.best not in first)
    if certain:
        listed = [f"{lead.best} by {lead.score}, {lead.gap} ahead of {lead.rival}" for lead in certain[:_LISTED]]
        more = [f"{len(certain) - _LISTED} more"] if len(certain) > _LISTED else []
        figures.append(f"Certain: {'; '.join([*listed, *more])}.")
    if rest := len(found) - len(certain):
        scores = f"By {'the other ' if certain else ''}{counted(rest, 'score')}"
        figures.append(f"{scores} it is not certain which method is the best.")
    return Verdict(_answer(first, found), figures, found)


def leads(against_best: pd.DataFrame) -> list[Lead]:
    """The best method by each score, from comparisons of all others with it."""
    table, _ = folded(against_best[against_best["difference"].notna()])
    kinds = {metric: own["explained"].nunique() for metric, own in table.groupby("metric")}
    found = []
    for (metric, explained), own in table.groupby(["metric", "explained"], sort=False):
        info = metric_named(str(metric))
        # a pooled metric may differ in the other direction than most images do
        sure = (own["p_holm"] < LEVEL) & (own["difference"] * own["effect"] > 0)
        behind = -own["difference"] * info.direction
        rival = own.loc[(behind if sure.all() else behind[~sure]).idxmin()]
        gap = number(abs(rival["difference"]), info) + (" points" if info.percent else "")
        score = f"{metric} ({explained} class)" if kinds[metric] > 1 else str(metric)
        p = p_value(rival["p_holm"])
        found.append(Lead(score, str(rival["against"]), str(rival["method"]), gap, p, bool(sure.all())))
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
        return f"{name} is ahead, but not by every score: it is the best {which}, for certain by {certain}."
    return f"{name} is ahead, but it is not certain that it wins: it is the best {which}, by none for certain."
