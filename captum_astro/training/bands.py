"""Learning curves of several runs of a variant: their mean, and a band over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captum_astro.storage import write_whole
from captum_astro.training.curve import Row
from captum_astro.training.options import Metric

if TYPE_CHECKING:
    import pandas as pd


def bands(curves: Mapping[str, Sequence[Sequence[Row]]]) -> pd.DataFrame:
    """The curves of variants, over the runs of each that have come to a step.

    Args:
        curves: By variant, the rows of its runs.

    Returns:
        A row for each variant and step: ``variant``, ``step``, ``epoch``, ``runs``, the means ``loss`` and ``valid``,
        and the range of the latter, ``valid_low`` and ``valid_high``.

    Example:
        >>> one, two = (Row(10, 1.0, loss, 0.1, 0.5, valid, 3.0) for loss, valid in ((2.0, 0.5), (1.0, 0.75)))
        >>> bands({"full": [[one], [two]]}).to_dict("records")[0]["valid"]
        0.625
    """
    import pandas as pd

    rows = [
        {"variant": name, "step": row.step, "epoch": row.epoch, "loss": row.loss, "valid": row.valid}
        for name, runs in curves.items()
        for run in runs
        for row in run
    ]
    grouped = pd.DataFrame(rows, columns=["variant", "step", "epoch", "loss", "valid"]).groupby(
        ["variant", "step"], sort=False
    )
    return grouped.agg(
        epoch=("epoch", "first"),
        runs=("valid", "size"),
        loss=("loss", "mean"),
        valid=("valid", "mean"),
        valid_low=("valid", "min"),
        valid_high=("valid", "max"),
    ).reset_index()


def plot_bands(table: pd.DataFrame, file: Path, metric: Metric, title: str = "") -> None:
    """Plot the means of `bands` against epochs, the range of the metric shaded.

    Args:
        table: From `bands`.
        file: The figure to write, PNG.
        metric: Name of the metric in ``valid``.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    losses, values = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(table.groupby("variant", sort=False)):
        colour = f"C{number}"
        losses.plot(rows["epoch"], rows["loss"], color=colour)
        values.plot(rows["epoch"], rows["valid"], color=colour, label=name)
        values.fill_between(rows["epoch"], rows["valid_low"], rows["valid_high"], color=colour, alpha=0.2, linewidth=0)
    losses.set(xlabel="epochs", ylabel="training loss")
    values.set(xlabel="epochs", ylabel=f"validation {metric}")
    if metric == "perplexity":
        values.set_yscale("log")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.suptitle(f"{title}: means, and the range over the seeds" if title else "")
    write_whole(file, lambda part: figure.savefig(part, dpi=110, format="png"))
