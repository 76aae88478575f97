"""The figure of what agreement with people costs: a panel for each method and metric, a line for each beta."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_SIDE = 2.6  # inches of a panel


def write_curves(curve: pd.DataFrame, file: Path) -> None:
    """Write the figure as SVG: the same table gives the same file, byte for byte.

    Args:
        curve: As `captum_astro.evaluation.vita.curve.accuracy_curve` returns it, with at least one row.
        file: The SVG.
    """
    cost, label = ("accuracy", "accuracy") if curve["accuracy"].notna().all() else ("same_class", "class kept")
    methods, metrics = curve["method"].unique(), curve["metric"].unique()
    with mpl.rc_context({"svg.hashsalt": "captum_astro", "font.size": 8}):
        figure = Figure(figsize=(_SIDE * len(methods) + 1, _SIDE * len(metrics)), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(len(metrics), len(methods), squeeze=False)
        for (metric, method), own in curve.groupby(["metric", "method"], sort=False):
            panel = panels[list(metrics).index(metric), list(methods).index(method)]
            plain, tried = own.iloc[:1], own.iloc[1:]
            panel.plot(plain[cost], plain["mean"], "k*", markersize=9, label="plain")
            for beta, line in tried.groupby("beta", sort=False):
                (drawn,) = panel.plot(line[cost], line["mean"], "o-", markersize=3, label=f"beta {beta:g}")
                panel.vlines(line[cost], line["low"], line["high"], color=drawn.get_color(), linewidth=0.6)
                for row in line.itertuples():
                    panel.annotate(f"{row.alpha:g}", (getattr(row, cost), row.mean), fontsize=6, xytext=(2, 2),
                                   textcoords="offset points")  # fmt: skip
            where = f"{own['layer'].iloc[0] or 'first projection'}, k {own['k'].iloc[0]}, tau {own['tau'].iloc[0]}"
            panel.set_title(f"{method}, {metric}\n{where}, phi {own['phi'].iloc[0]:g}", fontsize=7, parse_math=False)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel(f"{label} (at each point: alpha)")
            panel.set_ylabel(metric)
        panels[0, 0].legend(fontsize=6)
        figure.savefig(file, format="svg", metadata={"Date": None})
