"""``captum-astro ablate``: what each part of the attention is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import Device, console, escaped, listed


def ablate(
    task: Annotated[str, typer.Argument(help="cifar10, imdb, wikitext2 or scenes.")],
    out: Annotated[Path, typer.Option(help="The folder for runs and tables; runs found there count or go on.")],
    data: Annotated[Path | None, typer.Option(help="The folder of the data.")] = None,
    variants: Annotated[
        str, typer.Option(help="With commas: full, no positions, linear, neither, softmax, sigma outside, sigma none.")
    ] = "full,no positions,linear,neither,softmax,sigma outside,sigma none",
    alphas: Annotated[str, typer.Option(help="Exponents to try as well, with commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each, with the seeds from 0.", min=1)] = 3,
    reach: Annotated[
        float | None, typer.Option(help="The accuracy (or perplexity) on validation data whose epoch is counted.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the task's as NAME=VALUE; more than once.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Train variants of the attention with several seeds: epochs to a value, final value, 95 % intervals."""
    from captum_astro.options import kind_of, listed_values, named_texts
    from captum_astro.training.ablation import run_ablation, variants_of
    from captum_astro.training.config import configured

    given = {name.replace("-", "_"): value for name, value in named_texts("--set", options or []).items()}
    if data is not None:
        given["data"] = str(data)
    exponents = listed_values("--alphas", alphas, kind_of(float))
    chosen = variants_of(listed(variants), exponents)
    table = run_ablation(
        configured(task, dict(given)), chosen, out, seeds=range(seeds), reach=reach, device=device, console=console
    )
    console.print(escaped(table))
    console.print(escaped(f"{out}/ablation.csv, {out}/ablation.md, {out}/runs.csv, {out}/ablation.png"))
