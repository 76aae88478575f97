"""The table of an ablation: the variants, and how far they are from the first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from captum_astro.metrics.statistics import holm
from captum_astro.metrics.student_t import t_mean
from captum_astro.training.options import Metric
from captum_astro.wording import p_value

if TYPE_CHECKING:
    import pandas as pd


def summary(runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """One row per variant, with means over the seeds, and the difference from the first variant with the same seeds.

    Args:
        runs: Columns ``variant``, ``seed``, ``epochs_to`` (NaN: not reached), the metric, ``parameters`` and
            ``seconds``.
        metric: Name of the metric.

    Returns:
        Columns ``variant``, ``runs``, ``reached``, ``epochs`` (mean over runs that reached it), ``epochs_low`` and
        ``epochs_high`` (their range), the metric with ``_low`` and ``_high`` (Student's 95 % interval), the paired
        ``difference`` with ``_low`` and ``_high``, ``p_holm`` (of its t-test, after Holm's correction over the table),
        ``parameters``, ``seconds`` (the median). What one run cannot tell is NaN.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    values = {name: group.set_index("seed")[metric] for name, group in runs.groupby("variant", sort=False)}
    first = next(iter(values))
    for name, group in runs.groupby("variant", sort=False):
        reached = group["epochs_to"].dropna().astype(float)
        mean = t_mean(group[metric])
        row: dict[str, Any] = {"variant": name, "runs": len(group), "reached": len(reached)}
        row |= {"epochs": reached.mean(), "epochs_low": reached.min(), "epochs_high": reached.max()}
        row |= {metric: mean.value, f"{metric}_low": mean.low, f"{metric}_high": mean.high}
        pairs = (values[name] - values[first]).dropna()
        if name != first and len(pairs):
            apart = t_mean(pairs)
            row |= {"difference": apart.value, "difference_low": apart.low, "difference_high": apart.high}
            row["p_holm"] = apart.p_value
        # the median: a run that shared the machine with other work says nothing about the variant
        row |= {"parameters": int(group["parameters"].iloc[0]), "seconds": group["seconds"].median()}
        rows.append(row)
    columns = ["variant", "runs", "reached", "epochs", "epochs_low", "epochs_high"]
    columns += [f"{name}{end}" for name in (metric, "difference") for end in ("", "_low", "_high")]
    table = pd.DataFrame(rows, columns=[*columns, "p_holm", "parameters", "seconds"])
    tested = table["p_holm"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p_holm"].to_numpy(dtype=float))
    return table


def markdown(table: pd.DataFrame, metric: Metric, reach: float | None) -> str:
    """The table of `summary` as Markdown; ~ marks differences whose p-value is not below 0.05."""
    unit = ", points" if metric == "accuracy" else ""
    head = ["variant", f"test {metric} (95 %)", f"difference from {table['variant'].iloc[0]}{unit} (95 %)"]
    if reach is not None:
        head.append(f"epochs to {_value(metric, reach)} (range), reached")
    head += ["parameters", "seconds a run"]
    lines = [head, ["---"] * len(head)]
    for row in table.to_dict("records"):
        cells = [row["variant"], _mean(row, metric, metric), _difference(row, metric)]
        if reach is not None:
            spread = f" ({row['epochs_low']:.1f} .. {row['epochs_high']:.1f})" if row["reached"] > 1 else ""
            epochs = f"{row['epochs']:.1f}{spread}, "
            cells.append(f"{epochs if row['reached'] else ''}{row['reached']} of {row['runs']}")
        lines.append([*cells, f"{row['parameters']:,}", f"{row['seconds']:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)


def _value(metric: Metric, x: float) -> str:
    return f"{x:.1%}" if metric == "accuracy" else f"{x:.1f}"


def _mean(row: dict[str, Any], name: str, metric: Metric) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if math.isnan(low) else f" ({_value(metric, low)} .. {_value(metric, high)})"
    return _value(metric, row[name]) + interval


def _difference(row: dict[str, Any], metric: Metric) -> str:
    if math.isnan(row["difference"]):
        return ""

    def points(x: float) -> str:
        return f"{100 * x if metric == 'accuracy' else x:+.1f}"

    if math.isnan(p := row["p_holm"]):
        return points(row["difference"])
    interval = f"{points(row['difference_low'])} .. {points(row['difference_high'])}"
    return f"{'' if p < 0.05 else '~'}{points(row['difference'])} ({interval}), {p_value(p)}"
