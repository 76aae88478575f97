"""The command ``captum-astro``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from captum_astro.cli._common import Checkpoint, Ema, console, escaped, network
from captum_astro.cli.ablate import ablate
from captum_astro.cli.bench import bench
from captum_astro.cli.explain import explain
from captum_astro.cli.report import report
from captum_astro.cli.train import app as train_app
from captum_astro.cli.vita import app as vita_app
from captum_astro.extras import MissingExtraError, explained

app = typer.Typer(
    help="Explain Vision Transformers from timm.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(explain)
app.command()(ablate)
app.command()(bench)
app.command()(report)
app.add_typer(vita_app, name="vita")
app.add_typer(train_app, name="train")


def main() -> None:
    """Run the command; expected errors print one line, without a traceback. A missing extra exits with status 2."""
    try:
        app()
    except (ValueError, TypeError, NotImplementedError, OSError, IndexError, ImportError) as error:
        if os.environ.get("CAPTUM_ASTRO_TRACEBACK"):
            raise
        shown = explained(error) if isinstance(error, ImportError) else error
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escaped(shown)}")
        sys.exit(2 if isinstance(shown, MissingExtraError) else 1)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="The name of a timm model.")],
    checkpoint: Checkpoint = None,
    pretrained: Annotated[bool, typer.Option(help="Load the published weights; the check does not need them.")] = False,
    ema: Ema = True,
) -> None:
    """Check, in float64, that the layers of a model are recorded exactly."""
    import torch

    from captum_astro import check as check_model
    from captum_astro.models.loading import preprocessing

    checked = network(model, checkpoint, pretrained, ema).double()
    size = preprocessing(checked)[1]["input_size"]
    report = check_model(checked, torch.randn(1, *size, dtype=torch.float64))
    console.print(escaped(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def methods() -> None:
    """List the methods."""
    from captum_astro import explainers

    table = Table("method", "family", "gradient", "source", box=None)
    for explainer in explainers():
        table.add_row(explainer.name, explainer.family, "yes" if explainer.needs_gradient else "no", explainer.source)
    console.print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The figure to write.")] = Path("captum_astro_demo.png"),
    scenes: Annotated[int, typer.Option(help="Number of scenes to explain.", min=1)] = 100,
) -> None:
    """Explain scenes with known objects using the bundled models; needs no network and no files."""
    from captum_astro.demo import run_demo

    console.print(escaped(run_demo(out, scenes)))
