"""Shared by the commands: the console, and common options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Option(help="The name of a timm model.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A weights file: safetensors, or a weights-only PyTorch file.")]
Pretrained = Annotated[bool, typer.Option(help="Load the published weights, unless a checkpoint is given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]


def listed(text: str) -> list[str]:
    """Split comma-separated names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def escaped(text: object) -> str:
    """Escape text so that it is printed literally."""
    return escape(str(text))
