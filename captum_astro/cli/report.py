"""``captum-astro report``: the results of a benchmark as a page and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import examples, option, out_file
from captum_astro.cli._terminal import console


@examples(
    "report results",
    "report results --tables --against LRP -o page.html",
)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of captum-astro bench, finished or not.")],
    out: Annotated[Path | None, out_file("The page to write. [default: FOLDER/report.html]")] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also write CSV, Markdown and LaTeX to FOLDER/tables.")
    ] = False,
    against: Annotated[
        str | None, option("The reference method for the comparisons; VTranM if it was run.", metavar="NAME")
    ] = None,
) -> None:
    """Write a benchmark as an HTML page: tables, curves and examples."""
    from captum_astro.evaluation.report import write_report, write_tables

    page = write_report(folder, out or folder / "report.html", against)
    console.print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    if tables:
        files = write_tables(folder, folder / "tables", against)
        console.print(f"{folder / 'tables'}: {', '.join(file.name for file in files)}")
