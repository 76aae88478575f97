"""The table of one score: every method with its interval, its distance from the best, and its rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from captum_astro.evaluation.evidence.text import breakable
from captum_astro.evaluation.report.grid import LEVEL, MINUS, MISSING, Column, number
from captum_astro.evaluation.report.order import folded
from captum_astro.evaluation.specification.published import Table
from captum_astro.metrics.registry import metric_named
from captum_astro.wording import p_value

_MISSING = {"value": MISSING, "behind": "", "rank": MISSING}


@dataclass(frozen=True)
class Found:
    """The analysis of one model's rows, as `captum_astro.evaluation.analysis` returns it.

    Attributes:
        summary: Of the scores.
        against_best: Comparisons against None.
        ranking: The ranks.
    """

    summary: pd.DataFrame
    against_best: pd.DataFrame
    ranking: pd.DataFrame


@dataclass(frozen=True)
class Score:
    """One score, as text in Markdown.

    Attributes:
        column: The metric and the class explained.
        samples: The images that count, the most of any method.
        lines: A line for each method, the best first: its name and its cells.
        chance: The score of a map without information; empty if it is not known.
        agreement: Kendall's tau between the order of the methods and that in bootstrap samples; empty if there is none.
        beside: Kendall's tau with the paper's order, and of how many methods; empty without a paper.
    """

    column: Column
    samples: int
    lines: list[dict[str, str]]
    chance: str
    agreement: str
    beside: str

    @property
    def title(self) -> str:
        """The metric, an arrow to the better side, and the class if it matters."""
        return " ".join(filter(None, [self.column.info.name, self.column.arrow, self.role]))

    @property
    def role(self) -> str:
        """The class explained, in brackets."""
        return f"({self.column.role} class)" if self.column.explained == "true" else ""


def scores(found: Found, paper: Table) -> Iterator[Score]:
    """The scores of one model, in the order of the metrics.

    Args:
        found: Its analysis.
        paper: What stands beside it, as `captum_astro.evaluation.specification.published.published` returns it.
    """
    table, both = folded(found.summary[found.summary["method"] != "-"])
    tests, places = (_by_method(one) for one in (found.against_best, found.ranking))
    for (metric, explained), own in table.groupby(["metric", "explained"], sort=False):
        column = Column(metric_named(str(metric)), str(explained), metric in both)
        lines = own.assign(order=-own["mean"] * column.info.direction).sort_values("order", kind="stable")
        most = int(own["n"].max())
        printed = paper.get(column.key, {})
        agreement = [place["agreement"] for key, place in places.items() if key[:2] == column.key]
        yield Score(
            column,
            most,
            [
                {"method": breakable(row["method"])}
                | _cells(row, most, column, *(each.get((*column.key, row["method"])) for each in (tests, places)))
                | {"paper": _as_printed(printed.get(row["method"]), column)}
                for row in lines.to_dict("records")
            ],
            "" if own["chance"].isna().all() else number(float(own["chance"].mean()), column.info),
            f"{agreement[0]:.2f}" if agreement and agreement[0] == agreement[0] else "",
            _beside(own, printed, column.info.direction),
        )


def _by_method(table: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["metric"], row["explained"], row["method"]): row for row in table.to_dict("records")}


def _cells(
    row: Mapping[str, Any],
    most: int,
    column: Column,
    test: Mapping[str, Any] | None,
    place: Mapping[str, Any] | None,
) -> dict[str, str]:
    info = column.info
    if row["mean"] != row["mean"]:
        return _MISSING
    small = [f"[{number(row['low'], info)}, {number(row['high'], info)}]"]
    small += [f"n = {row['n']}"] if row["n"] < most else []
    value = number(row["mean"], info)
    best = info.ranks and test is None
    behind = "best" if best else ""
    if test is not None and test["difference"] == test["difference"]:
        same = "" if test["p_holm"] < LEVEL else "~"
        behind = _two(f"{same}{number(test['difference'], info, sign=True)}", p_value(test["p_holm"]))
    rank = "" if place is None else _two(f"{place['place']:g}", f"{place['low']:g} to {place['high']:g}")
    return {"value": _two(f"**{value}**" if best else value, *small), "behind": behind, "rank": rank}


def _two(first: str, *small: str) -> str:
    return "<br>".join([first, *(f"<small>{text.replace(' ', '&nbsp;')}</small>" for text in small if text)])


def _as_printed(value: float | None, column: Column) -> str:
    return "" if value is None else f"{value:.{2 if column.info.percent else 3}f}".replace("-", MINUS)


def _beside(own: pd.DataFrame, printed: Mapping[str, float], direction: int) -> str:
    """Whether the methods that the paper has are in its order."""
    ours = own.set_index("method")["mean"].dropna()
    names = [name for name in printed if name in ours.index]
    if len(names) < 2:
        return ""
    tau = kendalltau([direction * ours[name] for name in names], [direction * printed[name] for name in names])
    return f"{tau.statistic:.2f}".replace("-", MINUS) + f" over {len(names)} methods"
