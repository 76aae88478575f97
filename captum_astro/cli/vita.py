"""``captum-astro vita``: search over astrocyte settings, and evaluate one setting."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from captum_astro.cli._astrocytes import vita_options
from captum_astro.cli._common import (
    BatchSize,
    Checkpoint,
    Classes,
    Device,
    Ema,
    Limit,
    Model,
    Pretrained,
    examples,
    methods_option,
    metrics_option,
    named,
    named_methods,
    option,
    out_folder,
    whole_number,
)
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console
from captum_astro.progress import Lines
from captum_astro.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from captum_astro.evaluation.vita.settings import Setting

app = typer.Typer(
    help="Artificial astrocytes: search over settings, evaluate one.", no_args_is_help=True, rich_markup_mode=None
)

Data = Annotated[
    str, option("A dataset with human maps: scenes, clickme:PATH, boxes:FOLDER, ...", "--data", metavar="DATA")
]
Metrics = Annotated[
    list[str] | None,
    metrics_option("spearman, dice, iou, ssim; repeatable, or with commas. [default: spearman,dice,ssim]"),
]
_LEVEL = 0.05
_METRICS = ["spearman", "dice", "ssim"]
_METHODS = ["TokenGradCAM", "TokenGradCAMPlusPlus", "VTranM", "AttentionRollout", "IntegratedGradients"]


@app.command()
@examples(
    "vita search --data scenes -M scenes_vit_tiny_patch4_64 -o a",
    "vita search --data clickme:data/clickme --metric spearman -o b",
)
def search(
    data: Data,
    out: Annotated[Path, out_folder("Folder for scores and tables; a search found there is resumed.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    classes: Classes = None,
    layer: Annotated[list[str] | None, option("Path of a linear layer; repeatable.", metavar="PATH")] = None,
    k: Annotated[str, option("Values to try, with commas.", metavar="NUMBERS")] = "4,6,8",
    tau: Annotated[str, option("Values to try, with commas.", metavar="NUMBERS")] = "2,3",
    phi: Annotated[str, option("Values to try, with commas.", metavar="NUMBERS")] = "-1,-0.5,0,0.5",
    alpha: Annotated[str, option("Values to try, with commas.", metavar="NUMBERS")] = "1.25,1.5,2",
    beta: Annotated[str, option("Values to try, with commas.", metavar="NUMBERS")] = "0.05,0.005",
    metric: Metrics = None,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    rows: Annotated[int, whole_number("Images x settings to run at a time.")] = 64,
    device: Device = "cpu",
) -> None:
    """Select settings of the astrocytes by agreement with people.

    Each metric selects on half of the samples, and is reported on the other half.
    """
    from captum_astro.data.specs import human_samples
    from captum_astro.evaluation.vita.config import SearchConfig
    from captum_astro.evaluation.vita.search import search as run
    from captum_astro.evaluation.vita.settings import grid
    from captum_astro.kinds import kind_of
    from captum_astro.options import listed_values
    from captum_astro.storage import write_table

    settings = grid(
        layer=(None,) if layer is None else layer,
        k=listed_values("--k", k, kind_of(int)),
        tau=listed_values("--tau", tau, kind_of(int)),
        phi=listed_values("--phi", phi, kind_of(float)),
        alpha=listed_values("--alpha", alpha, kind_of(float)),
        beta=listed_values("--beta", beta, kind_of(float)),
    )
    config = SearchConfig(metrics=tuple(named("--metric", metric or _METRICS)), batch_size=batch_size, rows=rows)
    samples = human_samples(data, limit)
    classifier = network(model, checkpoint, pretrained, ema, device, classes)
    with _progress(counted(len(settings), "setting")) as done:
        found = run(classifier, samples, settings, config, out=out, done=done)
    write_table(out / "search.csv", found.table("search"))
    best = found.best()
    write_table(out / "best.csv", best)
    _print(best, settings)
    console.print(f"Selected on the even samples, reported on the odd ones: {out}/best.csv, {out}/search.csv")


@app.command()
@examples(
    "vita evaluate --data clickme:clickme --vita k=6,tau=3 -o one",
    "vita evaluate --data boxes:photos -m VTranM -n 20 -o trial",
)
def evaluate(
    data: Data,
    out: Annotated[Path, out_folder("Folder for scores and the table; a run found there is resumed.")],
    vita: Annotated[str | None, option("The setting, as in explain.", metavar="OPTIONS")] = None,
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    classes: Classes = None,
    method: Annotated[
        list[str] | None,
        methods_option(
            "Methods, also Captum's IntegratedGradients; repeatable, or with commas. [default: the Grad-CAMs, VTranM, "
            "AttentionRollout, IntegratedGradients]"
        ),
    ] = None,
    metric: Metrics = None,
    explained: Annotated[
        str, option("The class to explain: predicted by the plain model, or label.", metavar="CLASS")
    ] = "predicted",
    limit: Limit = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
) -> None:
    """Compare a model with and without astrocytes.

    Their agreement with human attention maps, for each method, and the accuracy of both.
    """
    from captum_astro.data.specs import human_samples
    from captum_astro.evaluation.vita.config import EvaluationConfig
    from captum_astro.evaluation.vita.controls import control_table
    from captum_astro.evaluation.vita.evaluate import evaluate as run
    from captum_astro.evaluation.vita.settings import Setting
    from captum_astro.storage import write_table

    if explained not in ("predicted", "label"):
        raise ValueError(f"--explained must be predicted or label, not {explained!r}.")
    setting = Setting.of({} if vita is None else vita_options(vita))
    config = EvaluationConfig(
        methods=tuple(named_methods(method or _METHODS)),
        metrics=tuple(named("--metric", metric or _METRICS)),
        explained="label" if explained == "label" else "predicted",
        batch_size=batch_size,
    )
    samples = human_samples(data, limit)
    classifier = network(model, checkpoint, pretrained, ema, device, classes)
    with _progress("ViT and ViTA") as done:
        found = run(classifier, samples, setting, config, out=out, done=done)
    compared = found.compare()
    write_table(out / "compared.csv", compared)
    _print(compared, [setting])
    controls = control_table({(row.method, row.metric): found for row in compared.itertuples()})
    write_table(out / "controls.csv", controls)
    _print_controls(controls)
    console.print(f"{counted(found.scores['sample'].nunique(), 'sample')}: {out}/compared.csv, {out}/controls.csv")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    if not console.is_terminal:
        yield Lines(console.print, "samples")
        return
    columns = SpinnerColumn("line"), TextColumn("{task.description}: {task.completed:.0f} samples"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.update(task, completed=count)


def _print(compared: pd.DataFrame, settings: list[Setting]) -> None:
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


def _print_controls(controls: pd.DataFrame) -> None:
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
