"""``captum-astro evidence``: what benchmarks found, as a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import examples, option, out_file
from captum_astro.cli._terminal import console


@examples(
    "evidence results -o page.md",
    'evidence boxes masks --title "On photographs" -o photographs.md',
)
def evidence(
    folder: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of captum-astro bench, finished or not.")
    ],
    out: Annotated[Path, out_file("The page to write, a .md file; its figure is put beside it.")],
    title: Annotated[str, option("The title of the page.", metavar="TEXT")] = "Evidence",
    note: Annotated[list[str] | None, option("A paragraph for the page; repeatable.", metavar="TEXT")] = None,
) -> None:
    """Write what benchmarks found as a page in Markdown.

    It says who wins, by how much, how surely, and with which commands and versions.
    """
    from captum_astro.evaluation.evidence import write_evidence

    for file in write_evidence(folder, out, title=title, notes=note or ()):
        console.print(str(file))
