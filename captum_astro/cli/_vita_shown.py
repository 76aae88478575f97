"""What ``captum-astro vita`` shows in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from captum_astro.cli._terminal import console
from captum_astro.progress import Lines
from captum_astro.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from captum_astro.evaluation.vita.settings import Setting

_LEVEL = 0.05


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Progress in samples: a line that changes in a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console.print, "samples")
        return
    columns = SpinnerColumn("line"), TextColumn("{task.description}: {task.completed:.0f} samples"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.update(task, completed=count)


def print_gains(compared: pd.DataFrame, settings: list[Setting]) -> None:
    """A comparison for the terminal: a table, then each selected setting and its effect on the model."""
    table = Table(box=None, pad_edge=False)
    for name in ("method", "metric", "ViT", "ViTA", "difference, 95 %", "p (Holm)"):
        table.add_column(name, no_wrap=True)
    chosen: dict[int, list[str]] = {}
    left_out: list[str] = []
    for row in compared.to_dict("records"):
        table.add_row(
            row["method"],
            row["metric"],
            f"{row['plain']:.3f}",
            f"{row['modulated']:.3f}",
            f"{row['low']:+.3f} .. {row['high']:+.3f}",
            f"{row['p_holm']:.2g}",
        )
        if row["left_out"]:
            left_out.append(f"{row['method']}, {row['metric']}: {counted(row['left_out'], 'sample')} without a value")
        accuracy = ""
        if "accuracy" in compared:
            accuracy = f", accuracy {row['plain_accuracy']:.1%} -> {row['accuracy']:.1%}"
        text = f"{_named(settings[row['setting']])}: same class as the plain model {row['same_class']:.1%}{accuracy}"
        chosen.setdefault(row["setting"], [text]).append(f"{row['method']}, {row['metric']}")
    console.print_whole(table)
    for line in left_out:
        console.print(line)
    for text, *pairs in chosen.values():
        console.print(text)
        if len(chosen) > 1:
            console.print(f"  for {'; '.join(pairs)}")


def print_controls(controls: pd.DataFrame) -> None:
    """How many gains are more than each control explains."""
    if controls.empty:
        return
    won = controls[(controls["difference"] > 0) & (controls["p_holm"] < _LEVEL)]
    counts = ", ".join(f"{name} {sum(won['control'] == name)}" for name in controls["control"].unique())
    pairs = len(controls[["method", "metric"]].drop_duplicates())
    console.print(f"Gains beyond each control, p (Holm) below {_LEVEL}, of {pairs}: {counts}")


def _named(setting: Setting) -> str:
    m = setting.modulation
    where = "" if setting.layer is None else f",layer={setting.layer}"
    return f"k={m.k},tau={m.tau},phi={m.phi:g},alpha={m.alpha:g},beta={m.beta:g}{where}"
