"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Option(help="The name of a timm model.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A weights file: safetensors, or a weights-only PyTorch file.")]
Pretrained = Annotated[bool, typer.Option(help="Load the published weights, unless a checkpoint is given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]


UsageError: Any = typer.BadParameter.__base__  # Click's, which newer versions of typer contain


def reject_empty(words: Sequence[str]) -> None:
    """Refuse an empty word of a command line: as a path it would mean the current folder, as a list everything.

    Args:
        words: The command line after the program's name.

    Raises:
        UsageError: If there is such a word.
    """
    for before, word in zip(["", *words], words, strict=False):
        name, equals, value = word.partition("=")
        if word.strip() and not (equals and name.startswith("--") and not value.strip()):
            continue
        option = name if word.strip() else before
        what = option if option.startswith("--") else "An argument"
        raise UsageError(f"{what} is empty: give a value, or leave it out.")


def listed(text: str) -> list[str]:
    """Split comma-separated names."""
    return [name.strip() for name in text.split(",") if name.strip()]
