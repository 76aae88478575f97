"""``captum-astro demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from captum_astro.cli._common import examples, out_file, whole_number
from captum_astro.cli._terminal import console


@examples("demo", "demo -n 10 -o first.png")
def demo(
    out: Annotated[Path, out_file("The figure to write.")] = Path("captum_astro_demo.png"),
    limit: Annotated[int, whole_number("Scenes to explain.", "--limit", "-n", "--scenes", most=10_000)] = 100,
) -> None:
    """Explain scenes with known objects, with the bundled models.

    It needs no network and no files.
    """
    from captum_astro.demo import run_demo

    console.print(run_demo(out, limit))
