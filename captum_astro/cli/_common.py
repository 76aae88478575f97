"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from captum_astro.cli._declared import declared
from captum_astro.kinds import Kind, choice, number, whole
from captum_astro.options import listed

Command = TypeVar("Command", bound=Callable[..., None])
UsageError: Any = typer.BadParameter.__base__  # Click's, which newer versions of typer contain
SEEDS = 2**32 - 1  # NumPy's largest seed
COUNTS = 10**9  # more than any data set, and a typing error rather than a wish


def whole_number(text: str, *names: str, least: int = 1, most: int = COUNTS) -> Any:
    """A typer option for a whole number."""
    return _read_by(whole(least, most), text, names, "INTEGER")


def finite_number(text: str, *names: str) -> Any:
    """A typer option for a number; what receives it checks its range."""
    return _read_by(number(), text, names, "NUMBER")


def one_of(text: str, *values: str, names: Sequence[str] = ()) -> Any:
    """A typer option for one of some values."""
    return _read_by(choice(*values), text, names, "|".join(values))


def option(text: str, *names: str, metavar: str) -> Any:
    """A typer option for a text or a path."""
    return typer.Option(*names, help=text, metavar=metavar)


def limit_option(text: str) -> Any:
    """A typer option for how much is done at most."""
    return whole_number(text, "--limit", "-n")


def out_file(text: str) -> Any:
    """A typer option for the file of the results."""
    return typer.Option("--out", "-o", help=text, metavar="FILE")


def out_folder(text: str) -> Any:
    """A typer option for the folder of the results."""
    return typer.Option("--out", "-o", help=text, metavar="FOLDER", callback=_no_file)


def methods_option(text: str) -> Any:
    """A typer option for methods; `named` splits its values."""
    return typer.Option("--method", "-m", "--methods", help=text, metavar="NAMES")


def metrics_option(text: str) -> Any:
    """A typer option for metrics; `named` splits its values."""
    return typer.Option("--metric", "--metrics", help=text, metavar="NAMES")


def named(option: str, words: Sequence[str]) -> list[str]:
    """The names that an option was given: it may be repeated, and a value may hold several, with commas.

    Args:
        option: The option, for the message.
        words: Its values.

    Raises:
        ValueError: If a value holds no name.

    Example:
        >>> named("--method", ["VTranM,LRP", "AttnLRP"])
        ['VTranM', 'LRP', 'AttnLRP']
    """
    return [name for word in words for name in listed(option, word)]


def named_methods(words: Sequence[str]) -> list[str]:
    """The methods that ``--method`` was given, as `named`; whether they exist is seen later.

    Raises:
        ValueError: If one is a model: timm's own scripts have ``-m`` for models.
    """
    names = named("--method", words)
    known = {method.name.lower() for method in declared()}
    for name in names:
        if "_" in name.partition(":")[0] and name.lower() not in known:
            import timm

            if timm.is_model(name.partition(".")[0]):
                raise ValueError(f"--method {name}: that is a model, which --model (-M) is for.")
    return names


def examples(*lines: str) -> Callable[[Command], Command]:
    """Add examples to a command's help: click keeps the lines of a paragraph that begins with a backspace."""

    def described(command: Command) -> Command:
        shown = [f"  captum-astro {line}" for line in lines]
        command.__doc__ = "\n".join([inspect.getdoc(command) or "", "", "\b", "Examples:", *shown])
        return command

    return described


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


Model = Annotated[str, option("The name of a timm model.", "--model", "-M", metavar="NAME")]
Checkpoint = Annotated[
    Path | None,
    option("A weights file: safetensors, or what torch.save wrote.", "--checkpoint", "-c", metavar="FILE"),
]
Classes = Annotated[
    int | None, whole_number("Number of classes; by default a checkpoint's, otherwise the published model's.")
]
Pretrained = Annotated[bool, typer.Option(help="Load the published weights, unless a checkpoint is given.")]
Ema = Annotated[
    bool, typer.Option("--ema/--no-ema", help="Load the averaged (EMA) weights if a checkpoint has raw ones too.")
]
Device = Annotated[
    str, typer.Option("--device", "-d", help="cpu, cuda, cuda:1, mps, ...", parser=_device, metavar="DEVICE")
]
Limit = Annotated[int | None, limit_option("Samples at most: for a trial.")]
BatchSize = Annotated[int, whole_number("Images at a time.", "--batch-size", "-b")]


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
