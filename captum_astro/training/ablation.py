"""The effect of each mechanism of the attention: variants of a run, over several seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from captum_astro.extras import needed
from captum_astro.metrics.statistics import bootstrap_interval
from captum_astro.storage import write_table, write_whole
from captum_astro.training.curve import Row, epochs_to, plot, read_csv
from captum_astro.training.fit import CURVE
from captum_astro.training.options import Metric
from captum_astro.training.run import train
from captum_astro.training.task import Config

if TYPE_CHECKING:
    import pandas as pd

Variants = Mapping[str, Mapping[str, Any]]

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no positions": {"relative_position": False},
    "linear": {"alpha": 1.0},
    "neither": {"relative_position": False, "alpha": 1.0},
    "softmax": {"attention": "softmax"},
    "sigma outside": {"nonlinearity": "outside"},
    "sigma none": {"nonlinearity": "none"},
}
"""The paper's ablations, and the versions of sigma. The learnt position embedding stays in all of them."""


def variants_of(names: Iterable[str], alphas: Iterable[float] = ()) -> dict[str, dict[str, Any]]:
    """Variants by name, and the full form with other exponents.

    Args:
        names: Names in `VARIANTS`.
        alphas: Exponents.

    Raises:
        ValueError: If there is no such variant.

    Example:
        >>> variants_of(["full", "linear"], [0.1])
        {'full': {}, 'linear': {'alpha': 1.0}, 'alpha 0.1': {'alpha': 0.1}}
    """
    chosen: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in VARIANTS:
            raise ValueError(f"There is no variant {name!r}. Variants: {', '.join(VARIANTS)}.")
        chosen[name] = dict(VARIANTS[name])
    return chosen | {f"alpha {alpha:g}": {"alpha": alpha} for alpha in alphas}


def run_ablation(
    config: Config,
    variants: Variants,
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    reach: float | None = None,
    device: torch.device | str = "cpu",
    console: Console | None = None,
) -> str:
    """Train every variant with every seed; finished runs in the folder are reused, others resumed.

    Writes ``runs.csv`` (one row per run), ``ablation.csv`` and ``ablation.md`` (one row per variant) and
    ``ablation.png`` (the first seed's curves) after every run, so the tables exist whenever it is stopped.

    Args:
        config: The options that the variants modify.
        variants: Changed options by name.
        folder: Folder of runs and tables.
        seeds: Random seeds of each variant's runs.
        reach: The validation value for which the epoch is reported.
        device: Where to train.
        console: Shows progress; None for silence.

    Returns:
        The table in Markdown.

    Raises:
        ValueError: If a folder holds another run, or the data cannot be read.
    """
    pd = needed("An ablation", "pandas")
    planned = [(seed, name, _changed(config, changes, seed)) for seed in seeds for name, changes in variants.items()]
    runs: list[dict[str, Any]] = []
    curves: dict[str, list[Row]] = {}
    text = ""
    for seed, name, own in planned:
        if console is not None:
            console.print(f"{name}, seed {seed}")
        place = folder / _slug(name) / f"seed-{seed}"
        result = train(own, place, device=device, console=console)
        rows = read_csv(place / CURVE)
        curves.setdefault(name, rows)
        epochs = None if reach is None else epochs_to(config.metric, rows, reach)
        runs.append({"variant": name, "seed": seed, "epochs_to": epochs, **result})
        table = summary(pd.DataFrame(runs), config.metric)
        text = markdown(table, config.metric, reach)
        _write(folder, pd.DataFrame(runs), table, text)
        plot(curves, folder / "ablation.png", config.metric, f"{config.task}, seed {seeds[0]}")
    return text


def summary(runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """One row per variant: runs, how many reached the value, and means with 95 % bootstrap intervals over seeds.

    Args:
        runs: Columns ``variant``, ``epochs_to`` (NaN: not reached), the metric, ``parameters`` and ``seconds``.
        metric: Name of the metric.

    Returns:
        Columns ``variant``, ``runs``, ``reached``, ``epochs`` (mean over runs that reached it), ``epochs_low``,
        ``epochs_high``, the metric with ``_low`` and ``_high``, ``parameters``, ``seconds``.
    """
    import pandas as pd

    rows = []
    for name, group in runs.groupby("variant", sort=False):
        reached = group["epochs_to"].dropna().astype(float)
        row: dict[str, Any] = {"variant": name, "runs": len(group), "reached": len(reached)}
        for column, values in (("epochs", reached), (metric, group[metric])):
            low, high = bootstrap_interval(values.to_numpy()) if len(values) else (float("nan"),) * 2
            row |= {column: values.mean(), f"{column}_low": low, f"{column}_high": high}
        row |= {"parameters": int(group["parameters"].iloc[0]), "seconds": group["seconds"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame, metric: Metric, reach: float | None) -> str:
    """The table of `summary` as Markdown."""

    def value(x: float) -> str:
        return f"{x:.1%}" if metric == "accuracy" else f"{x:.1f}"

    head = ["variant", f"test {metric} (95 %)"]
    if reach is not None:
        head.append(f"epochs to {value(reach)} (95 %), reached")
    head += ["parameters", "seconds a run"]
    lines = [" | ".join(head), "|".join("---" for _ in head)]
    for row in table.to_dict("records"):
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        cells = [row["variant"], f"{value(row[metric])} ({value(low)} .. {value(high)})"]
        if reach is not None:
            epochs = ""
            if row["reached"]:
                epochs = f"{row['epochs']:.1f} ({row['epochs_low']:.1f} .. {row['epochs_high']:.1f}), "
            cells.append(f"{epochs}{row['reached']} of {row['runs']}")
        cells += [f"{row['parameters']:,}", f"{row['seconds']:.0f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def _changed(config: Config, changes: Mapping[str, Any], seed: int) -> Config:
    names = {field.name for field in fields(config)}
    unknown = [name for name in changes if name not in names]
    if unknown:
        raise ValueError(f"{config.task} has no option {', '.join(unknown)}.")
    return replace(config, **{**changes, "seed": seed})


def _write(folder: Path, runs: pd.DataFrame, table: pd.DataFrame, text: str) -> None:
    write_table(folder / "runs.csv", runs)
    write_table(folder / "ablation.csv", table)
    write_whole(folder / "ablation.md", lambda part: part.write_text(text + "\n"))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())
