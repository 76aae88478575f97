"""The figure of a page: every method's mean rank with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from captum_astro.evaluation.evidence.section import Section
from captum_astro.evaluation.report.visible import visible

_WIDTH, _LINE, _HEAD = 4.6, 0.2, 0.75  # inches


def write_figure(sections: Sequence[Section], file: Path) -> None:
    """Write a panel for each section as SVG: the same sections give the same file, byte for byte.

    Args:
        sections: At least one, each with ranks.
        file: The SVG.
    """
    heights = [_HEAD + _LINE * len(section.ranks) for section in sections]
    with mpl.rc_context({"svg.hashsalt": "captum_astro", "font.size": 9}):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(len(sections), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, section in zip(panels, sections, strict=True):
            ranks = section.ranks
            up = range(len(ranks))
            panel.hlines(up, ranks["low"], ranks["high"], color="#0072B2", linewidth=1.5)
            panel.plot(ranks["mean_rank"], up, "o", color="#0072B2", markersize=4)
            panel.set_yticks(up, [visible(name).replace("$", r"\$") for name in ranks["method"]])
            panel.invert_yaxis()
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlim(0.5, len(ranks) + 0.5)
            panel.grid(axis="x", linewidth=0.3)
            panel.set_title(visible(f"{section.run}\n{section.model}"), fontsize=9, loc="left", parse_math=False)
            panel.set_xlabel("mean rank (1 is the best), 95 % interval")
        figure.savefig(file, format="svg", metadata={"Date": None})
