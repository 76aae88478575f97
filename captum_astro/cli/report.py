"""``captum-astro report``: the results of a benchmark as a page and as tables."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import examples, one_of, option, out_file
from captum_astro.cli._terminal import console
from captum_astro.wording import counted


@examples(
    "report results",
    "report results --tables --against LRP -o page.html",
    "report results --export hub",
)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of captum-astro bench, finished or not.")],
    out: Annotated[Path | None, out_file("The page to write. [default: FOLDER/report.html]")] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also write CSV, Markdown and LaTeX to FOLDER/tables.")
    ] = False,
    export: Annotated[
        str | None, one_of("hub: also write FOLDER/hub, which can be uploaded to the Hugging Face Hub.", "hub")
    ] = None,
    against: Annotated[
        str | None, option("The reference method for the comparisons; VTranM if it was run.", metavar="NAME")
    ] = None,
) -> None:
    """Write a benchmark as an HTML page: tables, curves and examples."""
    from captum_astro.evaluation.report import write_hub, write_report, write_tables

    page = write_report(folder, out or folder / "report.html", against)
    console.print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    if tables:
        files = write_tables(folder, folder / "tables", against)
        console.print(f"{folder / 'tables'}: {', '.join(file.name for file in files)}")
    if export:
        files = write_hub(folder, folder / export)
        console.print(f"{folder / export}: {counted(len(files), 'file')}, with README.md. To publish it as a data set:")
        console.print(f"hf upload OWNER/NAME {shlex.quote(str(folder / export))} --repo-type dataset")
