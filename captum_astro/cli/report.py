"""``captum-astro report``: the results of a benchmark as a page and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._terminal import console


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of captum-astro bench, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; DIR/report.html by default.")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Also write CSV, Markdown and LaTeX to DIR/tables.")] = False,
    against: Annotated[
        str | None, typer.Option(help="The reference method for the comparisons; VTranM if it was run.")
    ] = None,
) -> None:
    """Write a self-contained HTML page with all tables, curves and example maps."""
    from captum_astro.evaluation.report import write_report, write_tables

    page = write_report(folder, out or folder / "report.html", against)
    console.print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    if tables:
        files = write_tables(folder, folder / "tables", against)
        console.print(f"{folder / 'tables'}: {', '.join(file.name for file in files)}")
