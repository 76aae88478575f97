"""``captum-astro ablate``: the effect of each part of the attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import Device, finite_number, out_folder, whole_number
from captum_astro.cli._terminal import console


def ablate(
    task: Annotated[str, typer.Argument(help="cifar10, imdb, wikitext2 or scenes.")],
    out: Annotated[Path, out_folder("Folder for runs and tables; existing runs are reused or resumed.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data.")] = None,
    variants: Annotated[
        str,
        typer.Option(help="Comma-separated: full, no positions, linear, neither, softmax, sigma outside, sigma none."),
    ] = "full,no positions,linear,neither,softmax,sigma outside,sigma none",
    alphas: Annotated[str | None, typer.Option(help="Comma-separated exponents to try as well.")] = None,
    seeds: Annotated[int, whole_number("Runs per variant, with random seeds from 0.", most=1000)] = 3,
    reach: Annotated[
        float | None, finite_number("Report the epoch that reaches this validation accuracy (or perplexity).")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the task as NAME=VALUE; repeatable.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Train attention variants with several seeds; report epochs to a target, final value and 95 % intervals."""
    from captum_astro.kinds import number
    from captum_astro.options import listed, listed_values, named_texts
    from captum_astro.training.ablation import run_ablation, variants_of
    from captum_astro.training.config import configured

    given = {name.replace("-", "_"): value for name, value in named_texts("--set", options or []).items()}
    if data is not None:
        given["data"] = str(data)
    exponents = [] if alphas is None else listed_values("--alphas", alphas, number(least=0))
    chosen = variants_of(listed("--variants", variants), exponents)
    table = run_ablation(
        configured(task, dict(given)), chosen, out, seeds=range(seeds), reach=reach, device=device, console=console
    )
    console.print(table)
    console.print(f"{out}/ablation.csv, {out}/ablation.md, {out}/runs.csv, {out}/ablation.png")
