"""The model that the options of a command describe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captum_astro.cli._terminal import console

if TYPE_CHECKING:
    from torch import nn

_OPTIONS = {  # how a message names an argument, and the option that gives it
    "checkpoint=FILE": "--checkpoint FILE",
    "pretrained=False": "--no-pretrained",
    "use_ema=False": "--no-ema",
    "use_ema=True": "--ema",
    "give num_classes=": "give --classes ",
}


def network(
    model: str,
    checkpoint: Path | None,
    pretrained: bool,
    ema: bool,
    device: str = "cpu",
    classes: int | None = None,
) -> nn.Module:
    """The model that the options describe; what is said of its weights is printed."""
    from captum_astro.models.loading import load_model

    with options_named():
        return load_model(
            model, pretrained=pretrained, checkpoint=checkpoint, device=device, use_ema=ema,
            num_classes=classes, say=lambda line: console.print(in_options(line)),
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
