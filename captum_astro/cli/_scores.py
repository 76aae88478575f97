"""The scores of a benchmark for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from captum_astro.cli._terminal import console

if TYPE_CHECKING:
    from captum_astro.evaluation.report.grid import Grid

_PLAIN = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-"})  # for terminals without them


def print_scores(folder: Path) -> None:
    """Print each method's mean score by each metric, a table for each model and kind of metric."""
    import pandas as pd

    from captum_astro.evaluation.analysis import summary
    from captum_astro.evaluation.report import grid
    from captum_astro.evaluation.run.results import read_run

    scores = summary(read_run(folder).rows, bootstrap=1)  # the report has the intervals
    for model, own in scores.groupby("model", sort=False):
        for found in grid.scores(own, pd.DataFrame()):
            console.print(f"\n{model}, {found.title[:1].lower()}{found.title[1:]}")
            for number, table in enumerate(_tables(found)):
                console.print("\n" * bool(number), end="")
                console.print_whole(table)


def _tables(found: Grid) -> Iterator[Table]:
    """As many columns at a time as fit into the terminal, at least one."""
    begin = 0
    while begin < len(found.columns):
        end = begin + 1
        while end < len(found.columns) and console.width_of(_table(found, slice(begin, end + 1))) <= console.width:
            end += 1
        yield _table(found, slice(begin, end))
        begin = end


def _table(found: Grid, chosen: slice) -> Table:
    table = Table(Column("method", no_wrap=True), box=None, pad_edge=False)
    for column in found.columns[chosen]:
        head = [column.info.name, column.below, column.better.split()[0]]
        table.add_column("\n".join(filter(None, head)), justify="right", no_wrap=True)
    for name, cells in _rows(found):
        table.add_row(name, *cells[chosen])
    return table


def _rows(found: Grid) -> Iterator[tuple[str, list[str]]]:
    for name, cells in {**found.rows, **found.foot}.items():
        yield name, [cell.text.translate(_PLAIN) for cell in cells]
