"""``captum-astro ablate``: the effect of each part of the attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import Device, examples, finite_number, limit_option, option, out_folder, whole_number
from captum_astro.cli._terminal import console


@examples(
    "ablate imdb --data reviews/ -o ablation",
    "ablate imdb --data reviews/ -o trial -n 200 --seeds 1",
    "ablate imdb --data reviews/ -o s --variants a:scale=64 --jobs 2",
)
def ablate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="cifar10, imdb, wikitext2 or scenes.")],
    out: Annotated[Path, out_folder("Folder for runs and tables; existing runs are reused or resumed.")],
    data: Annotated[Path | None, option("Folder of the data.", metavar="FOLDER")] = None,
    variants: Annotated[
        str,
        option(
            "Comma-separated: full, no positions, linear, neither, softmax, sigma outside, sigma none, no embedding, "
            "no order; or your own, as 'scale 4m:scale=96:alpha=1'.",
            metavar="NAMES",
        ),
    ] = "full,no positions,linear,neither,softmax,sigma outside,sigma none",
    alphas: Annotated[str | None, option("Comma-separated exponents to try as well.", metavar="NUMBERS")] = None,
    seeds: Annotated[int, whole_number("Runs per variant, with random seeds from 0.", most=1000)] = 3,
    reach: Annotated[
        float | None, finite_number("Report the epoch that reaches this validation accuracy (or perplexity).")
    ] = None,
    options: Annotated[
        list[str] | None, option("An option of the task; repeatable.", "--set", metavar="NAME=VALUE")
    ] = None,
    limit: Annotated[int | None, limit_option("Samples at most, as for train with this task: for a trial.")] = None,
    device: Device = "cpu",
    jobs: Annotated[int, whole_number("Runs at a time, which share the cores.", "--jobs", most=1000)] = 1,
) -> None:
    """Train attention variants with several seeds, and compare them.

    The tables have the epochs to a target, the final value, and 95 % intervals; learning curves have a band over the
    seeds.
    """
    from captum_astro.cli._made import record_made
    from captum_astro.command_lines import DATA
    from captum_astro.kinds import number
    from captum_astro.options import listed, listed_values, named_texts
    from captum_astro.storage import write_whole
    from captum_astro.training.ablation import run_ablation
    from captum_astro.training.config import configured
    from captum_astro.training.variants import variants_of

    given: dict[str, object] = {
        name.replace("-", "_"): value for name, value in named_texts("--set", options or []).items()
    }
    if data is not None:
        given["data"] = str(data)
    if limit is not None:
        given["limit"] = str(limit)
    exponents = [] if alphas is None else listed_values("--alphas", alphas, number(least=0))
    words = listed("--variants", variants)
    config = configured(task, dict(given))
    chosen = variants_of(words, exponents, type(config))
    table = run_ablation(
        config, chosen, out, seeds=range(seeds), reach=reach, device=device, jobs=jobs, console=console
    )
    asked = {"variants": variants, "alphas": alphas, "seeds": seeds, "reach": reach, "set": options, "limit": limit}
    made = record_made(out, f"ablate {task}", DATA if data is not None else "", device, asked)
    write_whole(out / "ablation.md", lambda file: file.write_text(f"{table}\n\n{made}\n", encoding="utf-8"))
    console.print(table)
    written = ("ablation.csv", "ablation.md", "ablation.png", "curves.csv", "made.json", "runs.csv")
    console.print(", ".join(f"{out}/{name}" for name in written))
