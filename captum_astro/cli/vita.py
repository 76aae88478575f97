"""``captum-astro vita``: search over astrocyte settings, evaluate one setting, report both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

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
    out_file,
    out_folder,
    whole_number,
)
from captum_astro.cli._made import record_made
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console
from captum_astro.cli._vita_shown import print_controls, print_gains, progress
from captum_astro.wording import counted

app = typer.Typer(
    help="Artificial astrocytes: search settings, evaluate, report.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    str, option("A dataset with human maps: scenes, clickme:PATH, boxes:FOLDER, ...", "--data", metavar="DATA")
]
Metrics = Annotated[
    list[str] | None,
    metrics_option("spearman, dice, iou, ssim; repeatable, or with commas. [default: spearman,dice,ssim]"),
]
_METRICS = ["spearman", "dice", "ssim"]
_METHODS = ["TokenGradCAM", "TokenGradCAMPlusPlus", "VTranM", "AttentionRollout", "IntegratedGradients"]


@app.command()
@examples(
    "vita search --data scenes -M scenes_vit_tiny_patch4_64 -o a",
    "vita search --data clickme:data/clickme --metric spearman -o b",
    'vita search --data scenes --layer "blocks.[0-2].*" -o c',
)
def search(
    data: Data,
    out: Annotated[Path, out_folder("Folder for scores and tables; a search found there is resumed.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    classes: Classes = None,
    layer: Annotated[
        list[str] | None, option("Path of a linear layer, or a pattern: blocks.[0-2].*; repeatable.", metavar="PATH")
    ] = None,
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

    Each metric selects on half of the samples. The other half reports it, beside what else could explain a gain.
    """
    from captum_astro.astro.layers import find_layers
    from captum_astro.data.specs import human_samples
    from captum_astro.evaluation.vita.config import SearchConfig
    from captum_astro.evaluation.vita.curve import accuracy_curve
    from captum_astro.evaluation.vita.curve_figure import write_curves
    from captum_astro.evaluation.vita.search import search as run
    from captum_astro.evaluation.vita.searched import selected_controls
    from captum_astro.evaluation.vita.settings import at_layers, grid
    from captum_astro.kinds import kind_of
    from captum_astro.options import listed_values
    from captum_astro.storage import write_table, write_whole

    settings = grid(
        k=listed_values("--k", k, kind_of(int)),
        tau=listed_values("--tau", tau, kind_of(int)),
        phi=listed_values("--phi", phi, kind_of(float)),
        alpha=listed_values("--alpha", alpha, kind_of(float)),
        beta=listed_values("--beta", beta, kind_of(float)),
    )
    config = SearchConfig(metrics=tuple(named("--metric", metric or _METRICS)), batch_size=batch_size, rows=rows)
    samples = partial(human_samples, data, limit)
    read = samples()  # an error of the data comes before the model is loaded
    classifier = network(model, checkpoint, pretrained, ema, device, classes)
    if layer is not None:
        settings = at_layers(settings, [path for pattern in layer for path in find_layers(classifier, pattern)])
    with progress(counted(len(settings), "setting")) as done:
        found = run(classifier, read, settings, config, out=out, done=done)
    write_table(out / "search.csv", found.table("search"))
    best = found.best()
    write_table(out / "best.csv", best)
    print_gains(best, settings)
    console.print(f"Selected on the even samples, reported on the odd ones: {out}/best.csv, {out}/search.csv")
    curve = accuracy_curve(found, best)
    write_table(out / "curve.csv", curve)
    write_whole(out / "curve.svg", partial(write_curves, curve))
    console.print(f"Agreement and accuracy over alpha and beta: {out}/curve.csv, {out}/curve.svg")
    controls = selected_controls(classifier, samples, best, settings, config, out=out / "controls")
    write_table(out / "controls.csv", controls)
    print_controls(controls)
    console.print(f"What else could explain the gains: {out}/controls.csv")
    given: dict[str, Any] = {
        "model": model,
        "checkpoint": checkpoint,
        "pretrained": pretrained,
        "ema": ema,
        "classes": classes,
    }
    given |= {"layer": layer, "k": k, "tau": tau, "phi": phi, "alpha": alpha, "beta": beta, "metric": metric}
    given |= {"limit": limit, "batch-size": batch_size}
    record_made(out, "vita search", data, device, given)


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
            "Methods, also Captum's IntegratedGradients, Occlusion, Lime:samples=500 and KernelShap; repeatable, or "
            "with commas. [default: the Grad-CAMs, VTranM, AttentionRollout, IntegratedGradients]"
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
    with progress("ViT and ViTA") as done:
        found = run(classifier, samples, setting, config, out=out, done=done)
    compared = found.compare()
    write_table(out / "compared.csv", compared)
    print_gains(compared, [setting])
    controls = control_table({(row.method, row.metric): found for row in compared.itertuples()})
    write_table(out / "controls.csv", controls)
    print_controls(controls)
    console.print(f"{counted(found.scores['sample'].nunique(), 'sample')}: {out}/compared.csv, {out}/controls.csv")
    given: dict[str, Any] = {
        "vita": vita,
        "model": model,
        "checkpoint": checkpoint,
        "pretrained": pretrained,
        "ema": ema,
    }
    given |= {"classes": classes, "method": method, "metric": metric, "explained": explained, "limit": limit}
    record_made(out, "vita evaluate", data, device, given | {"batch-size": batch_size})


@app.command()
@examples(
    "vita report search -o vita.md",
    'vita report search published --title "ViTA and gaze" -o vita.md',
)
def report(
    folder: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of vita search and vita evaluate, finished.")
    ],
    out: Annotated[Path, out_file("The page to write, a .md file; its figures are put beside it.")],
    title: Annotated[str, option("The title of the page.", metavar="TEXT")] = "ViTA",
    note: Annotated[list[str] | None, option("A paragraph for the page; repeatable.", metavar="TEXT")] = None,
) -> None:
    """Write what searches and evaluations found as a page.

    It has the protocol, intervals, tests and their power, the controls, and the commands and versions that made it.
    """
    from captum_astro.evaluation.evidence import write_vita

    for file in write_vita(folder, out, title=title, notes=note or ()):
        console.print(str(file))
