"""``captum-astro parts``: what each part of a trained model's attention contributes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import Device, examples, limit_option, option, out_folder
from captum_astro.cli._terminal import console


@examples(
    "parts runs/imdb -o parts",
    "parts runs/wikitext2 --data texts/ -n 600 -o parts",
)
def parts(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run of captum-astro train.")],
    out: Annotated[Path, out_folder("Folder for the tables, parts.md and parts.json.")] = Path("parts"),
    data: Annotated[Path | None, option("Folder of the data, if they were moved.", metavar="FOLDER")] = None,
    limit: Annotated[int | None, limit_option("Samples at most, as for train with this task.")] = None,
    device: Device = "cpu",
) -> None:
    """Set each part of a trained model's attention to zero or its mean.

    The tables have the test accuracy (or perplexity) with each change, the saturation of sigma, the sizes of the two
    memories, and gradients at the start and the end of training. The run must be one with astromorphic blocks.
    """
    from captum_astro.cli._made import record_made
    from captum_astro.command_lines import DATA
    from captum_astro.training.parts import contributions, write

    found = contributions(run, data=str(data or ""), limit=limit, device=device)
    out.mkdir(parents=True, exist_ok=True)
    write(found, out, record_made(out, "parts", DATA if data is not None else "", device, {"limit": limit}, run))
    console.print(found.markdown)
    console.print(f"{out}/made.json, {out}/parts.json, {out}/parts.md")
