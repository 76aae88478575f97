"""Perturbation curves as lines of a plot, in a colour-blind-safe palette, with dashes and markers.

Colours: Okabe and Ito, "Color universal design", 2008, without yellow, which is too light on white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_astro.metrics.declaration import CurvePlot
from captum_astro.metrics.registry import all_metrics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "currentColor")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
MARKERS = ("M-4,0A4,4 0 1 0 4,0A4,4 0 1 0 -4,0Z", "M-3.5,-3.5H3.5V3.5H-3.5Z", "M0,-4.5L4.5,3.5H-4.5Z")
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 444, 10, 258


@dataclass(frozen=True)
class Style:
    """How a method is plotted everywhere: a colour, a dash pattern and a marker's path."""

    colour: str
    dash: str
    marker: str


@dataclass(frozen=True)
class Line:
    """A method's curve: its index among the methods, its path, and the positions of its markers."""

    method: int
    path: str
    marks: list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A plot of ``WIDTH`` by ``HEIGHT``: all methods' curves for one removal order and one explained class."""

    title: str
    side: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method; no two are equal up to 84 methods.

    Example:
        >>> drawn = styles([str(i) for i in range(84)])
        >>> len(set(drawn.values()))
        84
    """
    colours, dashes, markers = len(COLOURS), len(DASHES), len(MARKERS)
    return {
        method: Style(
            COLOURS[i % colours],
            DASHES[i // colours % dashes],
            MARKERS[(i + i // (colours * dashes)) % markers],
        )
        for i, method in enumerate(methods)
    }


def panels(rows: pd.DataFrame, methods: Sequence[str]) -> list[Panel]:
    """The mean curves of one model's methods.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`, one model's.
        methods: The methods, in the order of their styles.

    Returns:
        A panel for each removal order and explained class that has curves.
    """
    found = []
    drawn = [(metric.name, metric.plot) for metric in all_metrics().values() if metric.plot is not None]
    axes = dict.fromkeys(plot.axis for _, plot in drawn)
    for axis, explained in product(axes, ("predicted", "true")):  # panels to be compared follow each other
        for metric, plot in drawn:
            if plot.axis == axis:
                own = rows[(rows["metric"] == metric) & (rows["explained"] == explained) & rows["curve"].notna()]
                found += _panel(own, methods, plot, explained)
    return found


def _panel(rows: pd.DataFrame, methods: Sequence[str], plot: CurvePlot, explained: str) -> list[Panel]:
    """The panel of some rows, if there are any."""
    means = {str(name): mean_curve(list(table["curve"])) for name, table in rows.groupby("method", sort=False)}
    if not means:
        return []
    top = 1.0 if plot.whole else _ceiling(max(float(curve.max()) for curve in means.values()))
    return [
        Panel(
            title=plot.title.format(explained=explained),
            side=plot.axis,
            lines=[_line(i, means[name] / top, len(methods)) for i, name in enumerate(methods) if name in means],
            across=[(_x(share), f"{100 * share:g}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)],
            up=[(_y(share), f"{100 * share * top:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        )
    ]


def mean_curve(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of the curves that have the most common length.

    Example:
        >>> mean_curve([np.array([1.0, 0.0]), np.array([0.0, 0.0])]).tolist()
        [0.5, 0.0]
    """
    lengths = [len(curve) for curve in curves]
    usual = max(set(lengths), key=lengths.count)
    table = np.array([curve for curve in curves if len(curve) == usual], np.float64)
    return np.asarray(table.mean(0))


def _line(method: int, curve: NDArray[np.float64], methods: int) -> Line:
    across = np.linspace(0, 1, len(curve)) if len(curve) > 1 else np.zeros(1)
    points = [(round(_x(x), 1), round(_y(y), 1)) for x, y in zip(across, curve, strict=True) if np.isfinite(y)]
    # different marker positions per method, so that markers do not hide each other
    every = max(1, len(curve) // 4)
    marks = points[method % every :: every]
    return Line(method, "M" + "L".join(f"{x:g},{y:g}" for x, y in points) if points else "", marks)


def _ceiling(value: float) -> float:
    """The next of 20, 40, 60, 80 and 100 %."""
    return min(1.0, max(0.2, float(np.ceil(value * 5 - 1e-9)) / 5))


def _x(share: float) -> float:
    return LEFT + share * (RIGHT - LEFT)


def _y(share: float) -> float:
    return BOTTOM - share * (BOTTOM - TOP)
