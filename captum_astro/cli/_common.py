"""Options that several commands have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_astro.cli._terminal import console

if TYPE_CHECKING:
    from torch import nn

Model = Annotated[str, typer.Option(help="The name of a timm model.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A weights file: safetensors, or what torch.save wrote.")]
Pretrained = Annotated[bool, typer.Option(help="Load the published weights, unless a checkpoint is given.")]
Ema = Annotated[
    bool, typer.Option("--ema/--no-ema", help="Load the averaged (EMA) weights if a checkpoint has raw ones too.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]

_OPTIONS = {  # how a message names an argument, and the option that gives it
    "checkpoint=FILE": "--checkpoint FILE",
    "pretrained=False": "--no-pretrained",
    "use_ema=False": "--no-ema",
    "use_ema=True": "--ema",
    "give num_classes=": "give --classes ",
}


def network(model: str, checkpoint: Path | None, pretrained: bool, ema: bool, device: str = "cpu") -> nn.Module:
    """The model that the options describe; what is said of its weights is printed."""
    from captum_astro.models.loading import load_model

    with options_named():
        return load_model(
            model, pretrained=pretrained, checkpoint=checkpoint, device=device, use_ema=ema,
            say=lambda line: console.print(in_options(line)),
        )  # fmt: skip


@contextlib.contextmanager
def options_named() -> Iterator[None]:
    """Errors of models name the options of the command line instead of Python's arguments."""
    from captum_astro.models.errors import ModelError

    try:
        yield
    except ModelError as error:
        raise ModelError(in_options(error)) from error


def in_options(message: object) -> str:
    """A message about a model, with the options of the command line instead of Python's arguments.

    Example:
        >>> in_options("Give a file with checkpoint=FILE, or ask for random weights with pretrained=False.")
        'Give a file with --checkpoint FILE, or ask for random weights with --no-pretrained.'
    """
    text = str(message)
    for argument, option in _OPTIONS.items():
        text = text.replace(argument, option)
    return text


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
