"""The training curve: a table and its plot."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from captum_astro.storage import write_whole
from captum_astro.training.options import Metric


@dataclass(frozen=True)
class Row:
    """The state of a run after some steps.

    Attributes:
        step: Optimiser steps done.
        epoch: Number of passes over the training data.
        loss: Mean loss since the previous row.
        lr: The last step's learning rate.
        train: The metric on the training batches since the previous row, as they were trained on (augmented, with
            dropout).
        valid: The metric on the validation data.
        seconds: Time for training and evaluation, without pauses.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    train: float
    valid: float
    seconds: float


def better(metric: Metric, a: float, b: float) -> bool:
    """Whether a value is better than another: a higher accuracy, a lower perplexity.

    Example:
        >>> better("accuracy", 0.8, 0.7), better("perplexity", 80, 70)
        (True, False)
    """
    return a > b if metric == "accuracy" else a < b


def best(metric: Metric, rows: list[Row]) -> Row:
    """The first row with the best value on the validation data."""
    chosen = rows[0]
    for row in rows[1:]:
        if better(metric, row.valid, chosen.valid):
            chosen = row
    return chosen


def epochs_to(metric: Metric, rows: list[Row], value: float) -> float | None:
    """Epochs until the validation data reach a value, in steps of one evaluation; None if they never do."""
    reached = (row.epoch for row in rows if row.valid == value or better(metric, row.valid, value))
    return next(reached, None)


def write_csv(rows: list[Row], file: Path) -> None:
    """Write one line per row, with the names of `Row` as header."""

    def write(part: Path) -> None:
        with part.open("w", newline="") as to:
            table = csv.DictWriter(to, [field.name for field in fields(Row)], lineterminator="\n")
            table.writeheader()
            table.writerows({name: _short(value) for name, value in asdict(row).items()} for row in rows)

    write_whole(file, write)


def read_csv(file: Path) -> list[Row]:
    """Read the rows of a file written by `write_csv`, rounded to five significant figures.

    Raises:
        ValueError: If it is not such a file.
    """
    with file.open(newline="") as lines:
        try:
            return [
                Row(int(line.pop("step")), **{k: float(v) for k, v in line.items()}) for line in csv.DictReader(lines)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is not the table of a training run.") from error


def plot(curves: dict[str, list[Row]], file: Path, metric: Metric, title: str = "") -> None:
    """Plot loss and metric against epochs; several runs in one figure.

    Args:
        curves: Rows by the run's name.
        file: The figure to write, PNG.
        metric: Name of the metric in ``train`` and ``valid``.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, values = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(curves.items()):
        epochs, colour = [row.epoch for row in rows], f"C{number}"
        losses.plot(epochs, [row.loss for row in rows], color=colour, label=name)
        values.plot(epochs, [row.train for row in rows], color=colour, linestyle="--", linewidth=1)
        values.plot(epochs, [row.valid for row in rows], color=colour, label=name)
    losses.set(xlabel="epochs", ylabel="training loss")
    values.set(xlabel="epochs", ylabel=f"{metric} (dashed: training batches)")
    if metric == "perplexity":
        values.set_yscale("log")
    if len(curves) > 1:
        values.legend(fontsize=8)
    figure.suptitle(title)
    write_whole(file, lambda part: figure.savefig(part, dpi=110, format="png"))


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.5g}"
