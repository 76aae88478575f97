"""What the commands share: the console, and options of one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Option(help="A timm model's name.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A file of weights: safetensors, or PyTorch weights only.")]
Pretrained = Annotated[bool, typer.Option(help="The published weights, unless a checkpoint is given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]


def listed(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def escaped(text: object) -> str:
    """Text that is printed as it is."""
    return escape(str(text))
