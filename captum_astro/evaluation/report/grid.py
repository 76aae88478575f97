"""The tables of a report: their methods and metrics, and the text of each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from captum_astro.evaluation.report.order import BOTH, by_rank, folded
from captum_astro.metrics.declaration import Metric
from captum_astro.metrics.registry import all_metrics, metric_named
from captum_astro.wording import p_value

LEVEL = 0.05
MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A metric for one explained class; ``both``: the predicted class, of which the true class has the same values."""

    info: Metric
    explained: str
    both: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """As in the rows."""
        return self.info.name, self.explained

    @property
    def arrow(self) -> str:
        """An arrow that shows whether higher or lower is better; empty if neither is."""
        if not self.info.ranks:
            return ""
        return "↑" if self.info.direction > 0 else "↓"

    @property
    def better(self) -> str:
        """Whether higher or lower is better, as text."""
        if not self.info.ranks:
            return "no measure of which is better"
        return "higher is better" if self.info.direction > 0 else "lower is better"

    @property
    def role(self) -> str:
        """The explained class as text; empty if there is none."""
        return BOTH if self.both else "" if self.explained == "-" else self.explained

    @property
    def below(self) -> str:
        """The text under the name: the explained class and the unit."""
        parts = [self.role] if self.role else []
        return ", ".join([*parts, "%"] if self.info.percent else parts)


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: The main text.
        value: The sort key; NaN is sorted last.
        small: Smaller lines below it.
        mark: ``best``, ``near`` (not distinguishable from the best), ``better`` or ``worse`` (than the reference).
        strip: ``(low, mean, high)`` from 0 to 1, drawn as a line with a dot.
    """

    text: str
    value: float = math.nan
    small: tuple[str, ...] = ()
    mark: str = ""
    strip: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Grid:
    """A table: methods by columns, the best by mean rank first, and a chance level under each column."""

    title: str
    columns: list[Column]
    rows: dict[str, list[Cell]]
    foot: dict[str, list[Cell]] = field(default_factory=dict)


NOTHING = Cell(MISSING)


def number(value: float, info: Metric, sign: bool = False) -> str:
    """A value as printed: percentages with one decimal, others with three.

    Example:
        >>> number(0.7134, metric_named("mIoU")), number(0.5, metric_named("SaCo"), sign=True)
        ('71.3', '+0.500')
    """
    if math.isnan(value):
        return MISSING
    scaled, digits = (100 * value, 1) if info.percent else (value, 3)
    scaled = round(scaled, digits) + 0.0  # no -0.0
    return f"{scaled:{'+' if sign and scaled else ''}.{digits}f}".replace("-", MINUS)


def scores(summary: pd.DataFrame, against_best: pd.DataFrame) -> list[Grid]:
    """The scores of one model with confidence intervals and chance levels, with the best ones marked.

    Args:
        summary: Rows of one model from `captum_astro.evaluation.analysis.summary`.
        against_best: Rows of the same model from `captum_astro.evaluation.analysis.comparisons` against None.
    """
    tests = {(row["metric"], row["explained"], row["method"]): row for row in against_best.to_dict("records")}
    tops = {(row["metric"], row["explained"]): row["against"] for row in against_best.to_dict("records")}
    samples = int(summary["n"].max())

    def cell(row: dict[str, Any], column: Column) -> Cell:
        if math.isnan(row["mean"]):
            return Cell(MISSING, small=(f"{row['failed']} failed",) if row["failed"] else ())
        mark = "best" if tops.get(column.key) == row["method"] else ""
        test = tests.get((*column.key, row["method"]))
        if test is not None and test["p_holm"] >= LEVEL:
            mark = "near"
        small = [f"[{number(row['low'], column.info)}, {number(row['high'], column.info)}]"]
        if row["n"] < samples:
            small.append(f"n = {row['n']}")
        return Cell(number(row["mean"], column.info), row["mean"], tuple(small), mark)

    found = []
    for grid, own in _grids(summary, cell, "mean"):
        levels = {
            column.key: own[(own["metric"] == column.info.name) & (own["explained"] == column.explained)]["chance"]
            for column in grid.columns
        }
        foot = [
            Cell(number(float(levels[column.key].mean()), column.info), float(levels[column.key].mean()))
            for column in grid.columns
        ]
        known = any(not math.isnan(cell.value) for cell in foot)
        found.append(Grid(grid.title, grid.columns, grid.rows, {"chance": foot} if known else {}))
    return found


def compared(comparisons: pd.DataFrame) -> list[Grid]:
    """The differences from the reference method, of one model, with confidence intervals and corrected p-values."""

    def cell(row: dict[str, Any], column: Column) -> Cell:
        if math.isnan(row["difference"]):
            return NOTHING
        gain = row["difference"] * column.info.direction
        mark = ""
        # a pooled metric may differ in the other direction than most images do: then neither is better
        if row["p_holm"] < LEVEL and row["difference"] * row["effect"] > 0:
            mark = "better" if gain > 0 else "worse"
        interval = f"[{number(row['low'], column.info, True)}, {number(row['high'], column.info, True)}]"
        return Cell(
            number(row["difference"], column.info, True), row["difference"], (interval, p_value(row["p_holm"])), mark
        )

    return [grid for grid, _ in _grids(comparisons, cell, "difference")]


def places(ranking: pd.DataFrame) -> list[Grid]:
    """The ranks of one model's methods, with bootstrap intervals, and how well the bootstrap rankings agree."""
    last = max(2.0, float(ranking.groupby(["metric", "explained"])["method"].size().max()))

    def cell(row: dict[str, Any], column: Column) -> Cell:
        strip = tuple((row[name] - 1) / (last - 1) for name in ("low", "mean_place", "high"))
        small = f"{row['low']:g} to {row['high']:g}"
        return Cell(f"{row['place']:g}", row["place"], (small,), strip=(strip[0], strip[1], strip[2]))

    found = []
    for grid, own in _grids(ranking, cell, "place"):
        tau = own.groupby(["metric", "explained"])["agreement"].first()
        foot = [Cell(f"{value:.2f}" if (value := float(tau[c.key])) == value else MISSING, value) for c in grid.columns]
        found.append(Grid(grid.title, grid.columns, grid.rows, {"agreement, tau": foot}))
    return found


def _grids(table: pd.DataFrame, cell: Any, value: str) -> Iterator[tuple[Grid, pd.DataFrame]]:
    """A grid for each heading of metrics, its methods ranked by a column, and its rows of the table."""
    table, both = folded(table[table["method"] != "-"])
    pairs = list(dict.fromkeys(zip(table["metric"], table["explained"], strict=True)))
    columns = [Column(metric_named(name), kind, name in both) for name, kind in pairs]
    titles = [metric.title for metric in all_metrics().values()] + [column.info.title for column in columns]
    for title in dict.fromkeys(titles):
        own = [column for column in columns if column.info.title == title]
        if not own:
            continue
        inside = table[table["metric"].isin([column.info.name for column in own])]
        found = {(row["method"], row["metric"], row["explained"]): row for row in inside.to_dict("records")}
        rows = {
            method: [
                cell(row, column) if (row := found.get((method, *column.key))) is not None else NOTHING
                for column in own
            ]
            for method in by_rank(inside, value)
        }
        yield Grid(title, own, rows), inside
