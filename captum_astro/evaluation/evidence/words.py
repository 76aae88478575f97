"""A page on which words text models use, with a figure of the deletion curves: from a folder of ``words``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from captum_astro.evaluation import analysis
from captum_astro.evaluation.evidence.page import environment
from captum_astro.evaluation.report import grid
from captum_astro.evaluation.report.curves import mean_curve
from captum_astro.evaluation.report.grid import LEVEL, Cell, Grid
from captum_astro.evaluation.report.styles import COLOURS
from captum_astro.evaluation.report.visible import visible
from captum_astro.evaluation.run.results import read_run
from captum_astro.evaluation.specification.methods import RANDOM
from captum_astro.metrics.registry import text_metrics
from captum_astro.storage import write_whole

_COLOURED = 5  # methods of a panel, besides the random order


@dataclass(frozen=True)
class _Model:
    """The part of the page about one model: its tables, and its rows for the figure.

    Attributes:
        name: The model.
        accuracy: On the reviews, in percent.
        failures: As `captum_astro.evaluation.analysis.failures`.
        left_out: The methods that are not defined for it.
        scores: Every method by every metric.
        ranks: As `captum_astro.evaluation.analysis.mean_ranks`.
        rows: The rows.
    """

    name: str
    accuracy: float
    failures: list[dict[str, Any]]
    left_out: list[str]
    scores: Grid
    ranks: pd.DataFrame
    rows: pd.DataFrame


def write_words(folder: str | Path, *, bootstrap: int = 2000) -> list[Path]:
    """Write ``words.md`` and ``words.svg`` in a folder of `captum_astro.evaluation.words.run_words`.

    The same rows give the same files, byte for byte.

    Args:
        folder: The folder.
        bootstrap: The number of bootstrap samples.

    Returns:
        The files.

    Raises:
        ValueError: If the folder holds no rows of text models.
        OSError: If a file cannot be read or written.
    """
    folder = Path(folder)
    run = read_run(folder)
    if not {*run.rows["metric"]} & {*text_metrics()}:
        raise ValueError(f"{folder} holds no scores of words. captum-astro words makes them.")
    record = run.config["models"]
    models = [_model(str(name), own, record[name], bootstrap) for name, own in run.rows.groupby("model", sort=False)]
    page, figure = folder / "words.md", folder / "words.svg"
    templates = environment()
    templates.filters.update(cell=_cell)
    text = templates.get_template("words.md.jinja").render(
        models=models,
        metrics=list(text_metrics().values()),
        figure=figure.name,
        record=run.config,
        reviews=int(run.rows["sample"].nunique()),
        finished=run.finished,
        bootstrap=bootstrap,
        level=LEVEL,
        coloured=_COLOURED,
    )
    write_whole(figure, partial(_draw, models))
    write_whole(page, lambda file: file.write_bytes(visible(text).encode()))
    return [page, figure]


def _model(name: str, rows: pd.DataFrame, record: Mapping[str, Any], bootstrap: int) -> _Model:
    summary = analysis.summary(rows, bootstrap)
    accuracy = summary[summary["metric"] == "accuracy"]
    of_words = summary[summary["metric"].isin(text_metrics())]
    return _Model(
        name,
        100 * float(accuracy["mean"].iloc[0]),
        [dict(row) for row in analysis.failures(rows).to_dict("records")],
        sorted(record.get("left_out", {})),
        grid.scores(of_words, analysis.comparisons(rows, None, bootstrap))[0],
        analysis.mean_ranks(rows, bootstrap),
        rows,
    )


def _cell(cell: Cell) -> str:
    """The value, bold if it is the best, ~ before what cannot be told from it, with its interval."""
    value = {"best": f"**{cell.text}**", "near": f"~{cell.text}"}.get(cell.mark, cell.text)
    small = (f"<small>{line.replace(' ', '&nbsp;')}</small>" for line in cell.small)
    return "<br>".join([value, *small])


def _draw(models: Sequence[_Model], file: Path) -> None:
    """A line for each model: the class's mean probability, most and least important tokens deleted first."""
    drawn = [metric for metric in text_metrics().values() if metric.plot is not None]
    with mpl.rc_context({"svg.hashsalt": "captum_astro", "font.size": 8}):
        figure = Figure(figsize=(4.2 * len(drawn), 3.2 * len(models)), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(len(models), len(drawn), squeeze=False, sharey=True)
        for model, line in zip(models, panels, strict=True):
            for metric, panel in zip(drawn, line, strict=True):
                assert metric.plot is not None
                _curves(panel, model, metric.name)
                panel.set_title(visible(f"{model.name}\n{metric.plot.title}"), loc="left", parse_math=False, fontsize=8)
                panel.set_xlabel(metric.plot.across)
                panel.set_ylabel(metric.plot.axis)
                panel.spines[["top", "right"]].set_visible(False)
            line[-1].legend(frameon=False, fontsize=7, bbox_to_anchor=(1, 1), loc="upper left")
        figure.savefig(file, format="svg", metadata={"Date": None})


def _curves(panel: Any, model: _Model, metric: str) -> None:
    """The methods of the best mean ranks in colours, the random order dashed, the others grey."""
    methods = [str(name) for name in model.ranks["method"]]
    named = [name for name in methods if name != RANDOM][:_COLOURED]
    rows = model.rows[(model.rows["metric"] == metric) & model.rows["curve"].notna()]
    for method in [*(name for name in methods if name not in named), *named]:
        own = rows.loc[rows["method"] == method, "curve"]
        if own.empty:
            continue
        curve = 100 * mean_curve(list(own), bootstrap=1).mean
        across = [100 * i / (len(curve) - 1) for i in range(len(curve))]
        if method in named:
            panel.plot(across, curve, color=COLOURS[named.index(method)], linewidth=1.4, label=method)
        elif method == RANDOM:
            panel.plot(across, curve, color="black", linestyle="--", linewidth=1.2, label=method, zorder=3)
        else:
            panel.plot(across, curve, color="0.8", linewidth=0.7)
