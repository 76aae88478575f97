"""``captum-astro bench``."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from captum_astro.cli._common import (
    SEEDS,
    Classes,
    Device,
    Ema,
    Limit,
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
from captum_astro.cli._network import in_options, options_named
from captum_astro.cli._scores import print_scores
from captum_astro.cli._terminal import console, printable
from captum_astro.progress import Lines
from captum_astro.wording import counted, reason

if TYPE_CHECKING:
    from captum_astro.evaluation.specification.config import BenchConfig
    from captum_astro.evaluation.specification.models import ModelChoice
    from captum_astro.evaluation.specification.presets import Part


@examples(
    "bench -M vit_tiny_patch16_224 --data folder:pets -n 9 -o a",
    "bench -M vit_tiny_patch16_224 --data imagenet:val -m LRP -o b",
    "bench -M vit_tiny_patch16_224 -c a.pt --data folder:pets -o c",
    "bench --preset vtranm-table2 --part segmentation -o table2",
)
def bench(
    out: Annotated[Path, out_folder("Folder for the results; a benchmark found there is resumed.")],
    model: Annotated[
        list[str] | None,
        option(
            "timm's names; repeatable, or with commas; vita:NAME:k=6:... is a model under astrocytes.",
            "--model",
            "-M",
            "--models",
            metavar="NAMES",
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        option(
            "A weights file for each model, in the order of the models; repeatable.",
            "--checkpoint",
            "-c",
            metavar="FILE",
        ),
    ] = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    classes: Classes = None,
    method: Annotated[
        list[str] | None,
        methods_option(
            "Methods, or all; repeatable, or with commas; options after colons, as in VTranM:output=logit. "
            "[default: all]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        option("A dataset: scenes, or a name and a path, such as imagenet:/data/val or folder:photos.", metavar="DATA"),
    ] = None,
    limit: Limit = None,
    metric: Annotated[
        list[str] | None,
        metrics_option("Metrics, or all; auc, segmentation, human, ...; repeatable, or with commas. [default: all]"),
    ] = None,
    explained: Annotated[
        str | None, option("The class that is explained: predicted, true or both. [default: both]", metavar="CLASS")
    ] = None,
    preset: Annotated[
        str | None,
        option("vtranm-table1, -2, -3, -4 or vita-table1; other options modify it.", metavar="NAME"),
    ] = None,
    part: Annotated[str | None, option("A single dataset of a preset.", metavar="NAME")] = None,
    data_root: Annotated[Path, option("Folder that contains a preset's data.", metavar="FOLDER")] = Path("data"),
    steps: Annotated[int, whole_number("Number of perturbation steps.", least=2, most=100_000)] = 20,
    chunk_size: Annotated[int, whole_number("Samples per results file.")] = 10,
    examples: Annotated[int, whole_number("Number of samples whose maps are kept for the report.", least=0)] = 40,
    batch_size: Annotated[
        int | None, whole_number("Images at a time; by default 16 on a CPU, otherwise 64.", "--batch-size", "-b")
    ] = None,
    compiling: Annotated[
        bool, typer.Option("--compile", help="Compile the models for the forward passes, not for the maps.")
    ] = False,
    workers: Annotated[
        int, whole_number("Threads that read images while those before are scored; 0 reads none ahead.", least=0)
    ] = 1,
    crop: Annotated[
        str | None, option("timm: the model's evaluation transform; none: the whole image.", metavar="timm|none")
    ] = None,
    device: Device = "cpu",
    amp: Annotated[
        str, option("Precision of the perturbed forward passes: none, bfloat16 or float16.", metavar="NAME")
    ] = "none",
    seed: Annotated[int, whole_number("Random seed.", least=0, most=SEEDS)] = 0,
) -> None:
    """Compare methods by all metrics, over a dataset.

    A benchmark that was stopped resumes; under torchrun it runs on many machines.
    """
    from captum_astro.evaluation.specification.config import BenchConfig
    from captum_astro.evaluation.specification.methods import methods_of
    from captum_astro.evaluation.specification.metrics import metrics_of
    from captum_astro.evaluation.specification.presets import preset as preset_of

    table = None if preset is None else preset_of(preset)
    if table is None and (model is None or data is None):
        raise ValueError("Give --model and --data, or a --preset.")
    if table is None and part is not None:
        raise ValueError("--part is one dataset of a --preset.")
    parts: list[Part | None] = [None] if table is None else list(table.chosen(part))
    if model is None and table is not None and not table.models:
        raise ValueError(
            f"The weights of {table.source} are not published: give --model and --checkpoint, one --part "
            f"({' or '.join(each.name for each in table.parts)}) at a time."
        )
    if data is not None and len(parts) > 1:
        raise ValueError(f"--data is for one --part of {preset}: {' or '.join(p.name for p in parts if p)}.")
    names = list(table.models) if model is None and table is not None else named("--model", model or [])
    chosen = methods_of(named_methods(method) if method else "all" if table is None else table.methods)
    metrics = ",".join(named("--metric", metric)) if metric else None
    runs: list[tuple[BenchConfig, Path]] = []
    for each in parts:
        asked: dict[str, Any] = {
            "amp": amp,
            "metrics": metrics_of(metrics) if metrics else each.metrics if each else metrics_of("all"),
            "explained": explained or (each.explained if each else "both"),
            "crop": crop or (each.crop if each else "auto"),
        }
        config = BenchConfig(
            models=_choices(names, checkpoint or [], classes or (each.classes if each else None)),
            methods=chosen,
            data=data or (each.spec(data_root) if each else ""),
            limit=limit,
            steps=steps,
            chunk_size=chunk_size,
            examples=examples,
            batch_size=batch_size or (16 if device == "cpu" else 64),
            compile=compiling,
            workers=workers,
            pretrained=pretrained,
            use_ema=ema,
            device=device,
            seed=seed,
            preset=(preset, each.name) if preset and each else None,
            **asked,
        )
        runs.append((config, out / each.name if each and len(parts) > 1 else out))
    for config, folder in runs:
        _run(config, folder, strict=metrics is not None and metrics.lower() != "all")


def _run(config: BenchConfig, folder: Path, strict: bool) -> None:
    from captum_astro.evaluation.run.bench import run_bench
    from captum_astro.evaluation.run.failures import is_of_the_machine
    from captum_astro.evaluation.run.shards import shard_of
    from captum_astro.evaluation.run.store import BenchStore

    shard, store = shard_of(), BenchStore(folder)
    with _progress(folder.name, shown=shard.first) as progress, options_named():
        try:
            outcome = run_bench(
                config,
                folder,
                shard=shard,
                say=(lambda line: console.print(in_options(line))) if shard.first else lambda line: None,
                progress=progress,
                strict=strict,
            )
        except KeyboardInterrupt as error:
            stays = (
                "finished chunks are kept, and the same command resumes" if store.record.is_file() else "no chunk yet"
            )
            console.print(f"Stopped: {stays}.")
            raise typer.Exit(130) from error
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_of_the_machine(error):
                raise  # an internal error: show the full traceback
            stays = ". Finished chunks are kept: run the same command again to resume" if store.record.is_file() else ""
            raise OSError(f"{reason(error)}{stays}.") from error
    if not shard.first:
        return
    if outcome.missing:
        raise typer.Exit(1)  # so that torchrun restarts, and scripts do not treat the rows as complete
    console.print(f"{counted(outcome.samples, 'sample')}, all rows in {folder}/results.parquet.")
    if outcome.failed:
        raise ValueError("Every row of every method failed; the reasons are in the column error, and in the report.")
    print_scores(folder)
    console.print(f"\nNext, tables, curves and examples on a page: captum-astro report {shlex.quote(str(folder))}")


def _choices(names: list[str], files: list[Path], classes: int | None) -> tuple[ModelChoice, ...]:
    from captum_astro.evaluation.specification.models import model_of

    if files and len(files) != len(names):
        raise ValueError(
            f"{counted(len(files), '--checkpoint')} for {counted(len(names), 'model')}: give one for each, or none."
        )
    return tuple(model_of(name, files[i] if files else None, classes) for i, name in enumerate(names))


@contextlib.contextmanager
def _progress(what: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time; without a terminal, one line per minute."""
    if not shown:
        yield lambda done, total: None
    elif not console.is_terminal:
        yield Lines(console.print, "samples")
    else:
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bar:
            task = bar.add_task(printable(what), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
