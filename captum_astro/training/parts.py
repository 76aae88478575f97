"""What each part of the attention contributes to a trained model, on its test data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from captum_astro.devices import check_device
from captum_astro.metrics.statistics import bootstrap_interval
from captum_astro.storage import write_whole
from captum_astro.training.checkpoint import seed_everything
from captum_astro.training.config import configured, read_config
from captum_astro.training.interventions import changed, changes
from captum_astro.training.options import Metric
from captum_astro.training.recorded import norms, recorded
from captum_astro.training.run import WEIGHTS, load_trained
from captum_astro.training.weights import load_weights
from captum_astro.versions import versions

_RESAMPLES = 1999


@dataclass(frozen=True)
class Contributions:
    """What `contributions` measured; `as_json` has all of it, `markdown` its tables.

    Attributes:
        task: Name of the task.
        metric: ``"accuracy"`` or ``"perplexity"``.
        samples: Number of test samples; for a text of stretches of the model's length.
        changes: A row for each change, the unchanged model first: ``part``, ``set_to``, ``value`` (of the metric) with
            ``low`` and ``high``, and ``change`` with ``change_low`` and ``change_high``: the accuracy minus that of the
            unchanged model, or the perplexity divided by it. Intervals are 95 %, by bootstrap over the samples; those
            of the change are paired.
        memory: A row for each layer, see `captum_astro.training.recorded.recorded`.
        norms: A row for each layer and part, see `captum_astro.training.recorded.norms`, with ``when``: ``"start"``, at
            the run's initial weights, or ``"end"``.
    """

    task: str
    metric: Metric
    samples: int
    changes: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    norms: list[dict[str, Any]]

    @property
    def as_json(self) -> dict[str, Any]:
        """Everything and the versions of the libraries; what is undefined is None."""
        tables = {name: [_defined(row) for row in getattr(self, name)] for name in ("changes", "memory", "norms")}
        head = {"task": self.task, "metric": self.metric, "samples": self.samples}
        return {**head, **tables, "versions": versions()}

    @property
    def markdown(self) -> str:
        """Three tables: the changes; the memory; the norms at the start and the end."""
        value, change, points = "{:.2f}", "{:.3f}", 1
        if self.metric == "accuracy":
            value, change, points = "{:.2%}", "{:+.2f}", 100
        title = "change, points" if self.metric == "accuracy" else "times"
        rows = [
            {
                "part": row["part"],
                "set to": row["set_to"],
                f"test {self.metric} (95 %)": _spanned(value, row["value"], row["low"], row["high"]),
                f"{title} (95 %)": _spanned(change, *(points * row[f"change{end}"] for end in ("", "_low", "_high"))),
            }
            for row in self.changes
        ]
        shares = [
            {"layer": row["layer"], "saturated": _text("{:.1%}", row["saturated"])}
            | {name: _text("{:.3g}", row[name]) for name in ("H_neuron", "H_astro", "ratio")}
            for row in self.memory
        ]
        at = {(row["layer"], row["part"], row["when"]): row for row in self.norms}
        sizes = [
            {"layer": layer, "part": part}
            | {
                f"{name}, {when}": _text("{:.3g}", at[layer, part, when][name])
                for name in ("rms", "gradient")
                for when in ("start", "end")
            }
            for layer, part, when in at
            if when == "start"
        ]
        return "\n\n".join(_table(table) for table in (rows, shares, sizes) if table)


def contributions(
    folder: Path, *, data: str = "", limit: int | None = None, device: torch.device | str = "cpu"
) -> Contributions:
    """Measure what each part of the attention contributes to the model of a finished run.

    Every part is set to zero or to its mean in all layers at once, see `captum_astro.training.interventions.changes`,
    and the model is tested without being trained again. Norms are measured on the run's first training batch without
    dropout.

    Args:
        folder: The folder of the run.
        data: Where its data are now; by default where they were.
        limit: Samples at most, as the task's ``limit`` counts them: the memories of a causal model, one for each token,
            take long. The first training batch is then that of the first samples. By default as many as in the run.
        device: Where to compute.

    Raises:
        ValueError: If there is no finished run in the folder, its model has no astromorphic blocks, or the data cannot
            be read.
    """
    config = read_config(folder)
    load_trained(folder)  # says what is missing, before the data are read
    check_device(device)
    config = replace(config, data=data or config.data)
    if limit is not None:
        config = configured(config.task, {**asdict(config), "limit": limit})
    seed_everything(config.seed)
    task = config.prepare(folder, device)
    allowed = changes(task.model)
    source, loss = task.source, task.loss
    batch = source.batch(source.order(0, config.batch_size, config.seed)[0])
    start = norms(task.trained.eval(), loss, batch)
    load_weights(task.model, folder / WEIGHTS)
    end = norms(task.trained, loss, batch)
    whole: list[torch.Tensor] = []
    means, memory = recorded(task.model, lambda: whole.append(task.samples(task.model)))
    rows = [_row(config.metric, "", "", whole[0], whole[0])]
    for (part, set_to), change in allowed.items():
        with changed(task.model, change, means):
            rows.append(_row(config.metric, part, set_to, task.samples(task.model), whole[0]))
    return Contributions(
        task=config.task,
        metric=config.metric,
        samples=len(whole[0]),
        changes=rows,
        memory=[{"layer": layer, **figures} for layer, figures in memory.items()],
        norms=[{"when": when, **row} for when, found in (("start", start), ("end", end)) for row in found],
    )


def write(found: Contributions, folder: Path, made: str = "") -> None:
    """Write ``parts.json``, and ``parts.md`` with the tables and how they were made."""
    text = json.dumps(found.as_json, indent=1, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "parts.json", lambda part: part.write_text(text, encoding="utf-8"))
    tables = "\n\n".join(filter(None, (found.markdown, made))) + "\n"
    write_whole(folder / "parts.md", lambda part: part.write_text(tables, encoding="utf-8"))


def _row(metric: Metric, part: str, set_to: str, values: torch.Tensor, whole: torch.Tensor) -> dict[str, Any]:
    figure = float if metric == "accuracy" else math.exp
    row: dict[str, Any] = {"part": part or "none", "set_to": set_to}
    for name, sample in (("value", values), ("change", values - whole)):
        low, high = bootstrap_interval(sample, resamples=_RESAMPLES)
        prefix = "" if name == "value" else "change_"
        row |= {name: figure(float(sample.mean())), f"{prefix}low": figure(low), f"{prefix}high": figure(high)}
    return row


def _defined(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}


def _text(form: str, value: float) -> str:
    return "" if math.isnan(value) else form.format(value)


def _spanned(form: str, value: float, low: float, high: float) -> str:
    return f"{form.format(value)} ({form.format(low)} .. {form.format(high)})"


def _table(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    joined = [" | ".join(cells) for cells in lines]
    return "\n".join(f"|{line.replace(' ', '')}|" if "---" in line else f"| {line} |" for line in joined)
