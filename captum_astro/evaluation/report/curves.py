"""The curves of metrics as lines of a plot, with bootstrap intervals as bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.evaluation.analysis.bootstrap import interval
from captum_astro.evaluation.report.order import BOTH, PREDICTED, TRUE
from captum_astro.metrics.declaration import CurvePlot
from captum_astro.metrics.ranking import resampled_sums
from captum_astro.metrics.registry import all_metrics

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 444, 10, 258
LEVELS = 11  # at most, in the table of values


@dataclass(frozen=True)
class Curve:
    """A mean curve with its 95 % interval, each ``(L,)``, from 0 to 1."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A method's curve: paths of the line and of its band, positions of its markers, and its values as text.

    Attributes:
        method: Its name.
        path: The mean.
        band: The interval.
        marks: Positions of markers.
        values: For each level of the panel the mean and the interval, in percent.
    """

    method: str
    path: str
    band: str
    marks: list[tuple[float, float]]
    values: list[tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """A plot of ``WIDTH`` by ``HEIGHT``: all methods' curves for one metric and one explained class."""

    title: str
    lines: list[Line]
    below: str
    levels: list[str]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]


@dataclass(frozen=True)
class Chart:
    """Panels with the same vertical axis, to be compared with each other under one legend."""

    axis: str
    panels: list[Panel]


def charts(rows: pd.DataFrame, methods: Sequence[str], bootstrap: int = 2000) -> list[Chart]:
    """The mean curves of one model's methods.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`, one model's.
        methods: The methods, in the order of their styles.
        bootstrap: The number of bootstrap samples of the intervals.

    Returns:
        A chart for each vertical axis; in it a panel for each metric and explained class that has curves. Equal
        curves of the predicted and the true class share one.
    """
    drawn = [(metric.name, metric.plot) for metric in all_metrics().values() if metric.plot is not None]
    found = []
    for axis in dict.fromkeys(plot.axis for _, plot in drawn):
        panels: dict[tuple[str, str], Panel] = {}
        for explained, (metric, plot) in product((PREDICTED, TRUE), drawn):  # panels to be compared follow each other
            own = rows[(rows["metric"] == metric) & (rows["explained"] == explained) & rows["curve"].notna()]
            if plot.axis != axis or own.empty:
                continue
            panel = _panel(own, methods, plot, explained, bootstrap)
            before = panels.get((metric, PREDICTED))
            if explained == TRUE and before is not None and before.lines == panel.lines:
                title = plot.title.format(explained=BOTH)
                panels[metric, PREDICTED] = replace(before, title=title)
            else:
                panels[metric, explained] = panel
        if panels:
            found.append(Chart(axis, list(panels.values())))
    return found


def mean_curve(curves: Sequence[NDArray[np.float64]], bootstrap: int = 2000) -> Curve:
    """The mean of the curves that have the most common length, with its interval over bootstrap samples of them.

    Example:
        >>> found = mean_curve([np.array([1.0, 0.0]), np.array([0.0, 0.0])])
        >>> found.mean.tolist(), found.low.tolist(), found.high.tolist()
        ([0.5, 0.0], [0.0, 0.0], [1.0, 0.0])
    """
    lengths = [len(curve) for curve in curves]
    usual = max(set(lengths), key=lengths.count)
    table = np.array([curve for curve in curves if len(curve) == usual], np.float64)
    low, high = interval(resampled_sums(table, bootstrap, 0) / len(table))
    return Curve(np.asarray(table.mean(0)), low, high)


def _panel(rows: pd.DataFrame, methods: Sequence[str], plot: CurvePlot, explained: str, bootstrap: int) -> Panel:
    found = {str(name): mean_curve(list(table["curve"]), bootstrap) for name, table in rows.groupby("method")}
    top = 1.0 if plot.whole else _ceiling(max(float(curve.high.max()) for curve in found.values()))
    levels = _levels(max(len(curve.mean) for curve in found.values()))
    return Panel(
        title=plot.title.format(explained=explained),
        lines=[_line(i, name, found[name], top, levels) for i, name in enumerate(methods) if name in found],
        below=plot.across,
        levels=[f"{100 * level:.0f}" for level in levels],
        across=[(_x(share), f"{100 * share:g}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)],
        up=[(_y(share), f"{100 * share * top:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
    )


def _line(number: int, name: str, curve: Curve, top: float, levels: NDArray[np.float64]) -> Line:
    across = _shares(len(curve.mean))
    mean, low, high = (_points(across, values / top) for values in (curve.mean, curve.low, curve.high))
    # different marker positions per method, so that markers do not hide each other
    every = max(1, len(across) // 4)
    texts = [
        [f"{100 * value:.1f}" for value in np.interp(levels, across, values)]
        for values in (curve.mean, curve.low, curve.high)
    ]
    values = [(middle, f"[{least}, {most}]") for middle, least, most in zip(*texts, strict=True)]
    return Line(name, _path(mean), _path(high + low[::-1]), mean[number % every :: every], values)


def _levels(length: int) -> NDArray[np.float64]:
    """Shares of the horizontal axis at which a curve has values: all of them, or some and the last."""
    every = -(-(length - 1) // (LEVELS - 1)) or 1
    return _shares(length)[sorted({*range(0, length, every), length - 1})]


def _shares(length: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, length) if length > 1 else np.zeros(1)


def _points(across: NDArray[np.float64], values: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(round(_x(x), 1), round(_y(y), 1)) for x, y in zip(across, values, strict=True) if np.isfinite(y)]


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points) if points else ""


def _ceiling(value: float) -> float:
    """The next of 20, 40, 60, 80 and 100 %."""
    return min(1.0, max(0.2, float(np.ceil(value * 5 - 1e-9)) / 5))


def _x(share: float) -> float:
    return LEFT + share * (RIGHT - LEFT)


def _y(share: float) -> float:
    return BOTTOM - share * (BOTTOM - TOP)
