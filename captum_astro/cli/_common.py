"""Options that several commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from captum_astro.kinds import Kind, choice, number, whole

UsageError: Any = typer.BadParameter.__base__  # Click's, which newer versions of typer contain
SEEDS = 2**32 - 1  # NumPy's largest seed
COUNTS = 10**9  # more than any data set, and a typing error rather than a wish


def whole_number(text: str, *names: str, least: int = 1, most: int = COUNTS) -> Any:
    """A typer option for a whole number."""
    return _read_by(whole(least, most), text, names, "<int>")


def finite_number(text: str, *names: str) -> Any:
    """A typer option for a number; what receives it checks its range."""
    return _read_by(number(), text, names, "<float>")


def one_of(text: str, *values: str, names: Sequence[str] = ()) -> Any:
    """A typer option for one of some values."""
    return _read_by(choice(*values), text, names, f"<{'|'.join(values)}>")


def out_folder(text: str) -> Any:
    """A typer option for the folder of the results."""
    return typer.Option(help=text, callback=_no_file)


def _no_file(path: Path) -> Path:
    there = next(place for place in (path, *path.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise ValueError(f"--out {path}: {there} is a file; give a folder.")
    return path


def _read_by(kind: Kind, text: str, names: Sequence[str], metavar: str) -> Any:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value  # a default
        try:
            return kind.read(value)
        except ValueError as error:
            raise typer.BadParameter(f"it must be {kind.accepted}, not {value!r}.") from error

    return typer.Option(*names, help=text, parser=read, metavar=metavar)


def _device(text: str) -> str:
    """The name of a device of this machine."""
    if text == "cpu":
        return text  # without importing torch
    from captum_astro.devices import check_device

    try:
        check_device(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


Model = Annotated[str, typer.Option(help="The name of a timm model.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A weights file: safetensors, or what torch.save wrote.")]
Pretrained = Annotated[bool, typer.Option(help="Load the published weights, unless a checkpoint is given.")]
Ema = Annotated[
    bool, typer.Option("--ema/--no-ema", help="Load the averaged (EMA) weights if a checkpoint has raw ones too.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...", parser=_device, metavar="<device>")]
Limit = Annotated[int | None, whole_number("Maximum number of samples.")]


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
