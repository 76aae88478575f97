"""What a reader meets first: methods by rank, and the predicted and the true class once if they are the same."""

from __future__ import annotations

import pandas as pd

from captum_astro.metrics.registry import metric_named

PREDICTED, TRUE, BOTH = "predicted", "true", "predicted = true"


def folded(table: pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
    """A table without rows of the true class that repeat those of the predicted class.

    Args:
        table: Rows with ``metric``, ``explained`` and ``method``, of one model.

    Returns:
        The other rows, and the metrics of which the predicted class stands for both.

    Example:
        >>> table = pd.DataFrame({"metric": ["mIoU"] * 2 + ["SaCo"] * 2, "explained": ["predicted", "true"] * 2,
        ...                       "method": "LRP", "mean": [0.5, 0.5, 0.2, 0.3]})
        >>> rows, both = folded(table)
        >>> rows["mean"].tolist(), both
        ([0.5, 0.2, 0.3], {'mIoU'})
    """
    both = set()
    for metric, own in table.groupby("metric", sort=False):
        one, other = (
            own[own["explained"] == kind].drop(columns="explained").reset_index(drop=True) for kind in (PREDICTED, TRUE)
        )
        if len(one) and one.equals(other):
            both.add(str(metric))
    return table[~(table["metric"].isin(both) & (table["explained"] == TRUE))], both


def by_rank(table: pd.DataFrame, value: str) -> list[str]:
    """The methods, the best first, by their mean rank over all metrics that rank, and all explained classes.

    Methods without a value are last, and without such a metric the order is that of the table.

    Args:
        table: Rows with ``metric``, ``explained`` and ``method``, of one model.
        value: The column that ranks them: scores, or ``place``, of which the lowest is the best.

    Example:
        >>> table = pd.DataFrame({"metric": "SaCo", "explained": "-", "method": [*"ABC"], "mean": [0.1, None, 0.2]})
        >>> by_rank(table, "mean")
        ['C', 'A', 'B']
    """
    ranked = table[[metric_named(str(name)).ranks for name in table["metric"]]]
    mean = pd.Series(dtype=float)
    if len(ranked):
        signs = [-1 if value == "place" else metric_named(str(name)).direction for name in ranked["metric"]]
        signed = (ranked[value] * signs).groupby([ranked["metric"], ranked["explained"]])
        places = signed.rank(ascending=False, na_option="bottom")
        mean = places.groupby(ranked["method"], sort=False).mean().sort_values(kind="stable")
    return [str(name) for name in dict.fromkeys([*mean.index, *table["method"]])]
