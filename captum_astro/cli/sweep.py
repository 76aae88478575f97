"""``captum-astro sweep``: which methods work with which of timm's models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import examples, limit_option, option, out_file, whole_number
from captum_astro.cli._terminal import console


@examples(
    "sweep 'vit_tiny*' swin",
    "sweep -n 3 -o trial.json",
)
def sweep(
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="PATTERN", help="Names or families, with *; all by default.")
    ] = None,
    out: Annotated[Path, out_file("The JSON file of the results, which is continued.")] = Path("sweep.json"),
    again: Annotated[bool, typer.Option("--again", help="Try also what has been tried, as after a change.")] = False,
    page: Annotated[Path | None, option("A Markdown page to write of all results in the file.", metavar="FILE")] = None,
    limit: Annotated[int | None, limit_option("Names at most, of those in alphabetical order: for a trial.")] = None,
    seconds: Annotated[int, whole_number("After which a model is given up.", most=3600)] = 300,
) -> None:
    """Try the methods on a small model of each kind that timm has.

    Each is tried in a process of its own.
    """
    from captum_astro.storage import write_whole
    from captum_astro.support.page import page as as_page
    from captum_astro.support.sweep import Sweep, names_like

    results, names = Sweep(out), names_like(patterns or ())[:limit]
    results.sort(names, console.print)
    for name, found in results.tried(names, again, float(seconds)):
        said = found.get("error") or ", ".join(f"{method} {status}" for method, status in found["status"].items())
        console.print(f"{name} ({found['seconds']} s): {said}")
    if page is not None:
        text = as_page(results)
        write_whole(page, lambda part: part.write_text(text))
