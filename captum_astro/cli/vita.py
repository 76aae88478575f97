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
from captum_astro.cli._common import Checkpoint, Device, Ema, Limit, Model, Pretrained, out_folder, whole_number
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console
from captum_astro.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from captum_astro.evaluation.vita.settings import Setting

app = typer.Typer(help="Artificial astrocytes: search over settings, evaluate one.", no_args_is_help=True)

Data = Annotated[str, typer.Option(help="A dataset with human maps: scenes, clickme:PATH, boxes:FOLDER, ...")]
Metrics = Annotated[str, typer.Option(help="Comma-separated: spearman, dice, iou, ssim.")]
BatchSize = Annotated[int, whole_number("Images at a time.")]


@app.command()
def search(
    data: Data,
    out: Annotated[Path, out_folder("Folder for scores and tables; a search found there is resumed.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    layer: Annotated[list[str] | None, typer.Option(help="Path of a linear layer; repeatable.")] = None,
    k: Annotated[str, typer.Option(help="With commas.")] = "4,6,8",
    tau: Annotated[str, typer.Option(help="With commas.")] = "2,3",
    phi: Annotated[str, typer.Option(help="With commas.")] = "-1,-0.5,0,0.5",
    alpha: Annotated[str, typer.Option(help="With commas.")] = "1.25,1.5,2",
    beta: Annotated[str, typer.Option(help="With commas.")] = "0.05,0.005",
    metrics: Metrics = "spearman,dice,ssim",
    limit: Limit = None,
    batch_size: BatchSize = 8,
    rows: Annotated[int, whole_number("Images x settings to run at a time.")] = 64,
    device: Device = "cpu",
) -> None:
    """Select settings on half of the samples by each metric, and report them on the other half."""
    from captum_astro.data.specs import human_samples
    from captum_astro.evaluation.vita.config import SearchConfig
    from captum_astro.evaluation.vita.search import search as run
    from captum_astro.evaluation.vita.settings import grid
    from captum_astro.kinds import kind_of
    from captum_astro.options import listed, listed_values
    from captum_astro.storage import write_table

    settings = grid(
        layer=(None,) if layer is None else layer,
        k=listed_values("--k", k, kind_of(int)),
        tau=listed_values("--tau", tau, kind_of(int)),
        phi=listed_values("--phi", phi, kind_of(float)),
        alpha=listed_values("--alpha", alpha, kind_of(float)),
        beta=listed_values("--beta", beta, kind_of(float)),
    )
    config = SearchConfig(metrics=tuple(listed("--metrics", metrics)), batch_size=batch_size, rows=rows)
    samples = human_samples(data, limit)
    classifier = network(model, checkpoint, pretrained, ema, device)
    with _progress(counted(len(settings), "setting")) as done:
        found = run(classifier, samples, settings, config, out=out, done=done)
    write_table(out / "search.csv", found.table("search"))
    best = found.best()
    write_table(out / "best.csv", best)
    _print(best, settings)
    console.print(f"Selected on the even samples, reported on the odd ones: {out}/best.csv, {out}/search.csv")


@app.command()
def evaluate(
    data: Data,
    out: Annotated[Path, out_folder("Folder for scores and the table; a run found there is resumed.")],
    vita: Annotated[str | None, typer.Option(help="The setting, as in explain.")] = None,
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    methods: Annotated[
        str, typer.Option(help="Comma-separated; also Captum's IntegratedGradients.")
    ] = "TokenGradCAM,TokenGradCAMPlusPlus,VTranM,AttentionRollout,IntegratedGradients",
    metrics: Metrics = "spearman,dice,ssim",
    explained: Annotated[
        str, typer.Option(help="The class to explain: predicted by the plain model, or label.")
    ] = "predicted",
    limit: Limit = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
) -> None:
    """Compare the plain and the modulated model with human attention maps, per method, and the accuracy of both."""
    from captum_astro.data.specs import human_samples
    from captum_astro.evaluation.vita.config import EvaluationConfig
    from captum_astro.evaluation.vita.evaluate import evaluate as run
    from captum_astro.evaluation.vita.settings import Setting
    from captum_astro.options import listed
    from captum_astro.storage import write_table

    if explained not in ("predicted", "label"):
        raise ValueError(f"--explained must be predicted or label, not {explained!r}.")
    setting = Setting.of({} if vita is None else vita_options(vita))
    config = EvaluationConfig(
        methods=tuple(listed("--methods", methods)),
        metrics=tuple(listed("--metrics", metrics)),
        explained="label" if explained == "label" else "predicted",
        batch_size=batch_size,
    )
    samples = human_samples(data, limit)
    classifier = network(model, checkpoint, pretrained, ema, device)
    with _progress("ViT and ViTA") as done:
        found = run(classifier, samples, setting, config, out=out, done=done)
    compared = found.compare()
    write_table(out / "compared.csv", compared)
    _print(compared, [setting])
    console.print(f"{counted(found.scores['sample'].nunique(), 'sample')}: {out}/compared.csv")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
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
    console.print(table)
    for line in left_out:
        console.print(line)
    for text, *pairs in chosen.values():
        console.print(text)
        if len(chosen) > 1:
            console.print(f"  for {'; '.join(pairs)}")


def _named(setting: Setting) -> str:
    m = setting.modulation
    where = "" if setting.layer is None else f",layer={setting.layer}"
    return f"k={m.k},tau={m.tau},phi={m.phi:g},alpha={m.alpha:g},beta={m.beta:g}{where}"
