"""The task of a run: its options from names and texts, and their record in its folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from captum_astro.kinds import Kind
from captum_astro.storage import RECORD, begin, read_record
from captum_astro.training.cifar10 import Cifar10
from captum_astro.training.imdb import Imdb
from captum_astro.training.scenes import ScenesTask
from captum_astro.training.task import Config
from captum_astro.training.wikitext2 import WikiText2


def tasks() -> dict[str, type[Config]]:
    """The tasks by name."""
    known: tuple[type[Config], ...] = (Cifar10, Imdb, WikiText2, ScenesTask)
    return {kind.task: kind for kind in known}


def configured(task: str, values: dict[str, Any]) -> Config:
    """A task's options from names and values; texts, as from a command line, are converted to the option's type.

    Raises:
        ValueError: If there is no such task or option, or a value is invalid.

    Example:
        >>> configured("imdb", {"dim": "64", "relative_position": "false"}).dim
        64
    """
    kinds = tasks()
    if task not in kinds:
        raise ValueError(f"There is no task {task!r}. Tasks: {', '.join(kinds)}.")
    options = kinds[task].kinds()
    for name in values:
        if name not in options:
            raise ValueError(f"{task} has no option {name!r}. Options: {', '.join(options)}.")
    return kinds[task](**{name: _parsed(name, value, options[name]) for name, value in values.items()})


def keep_config(folder: Path, config: Config, free: Collection[str] = ()) -> None:
    """Write the options of a run, or check that those in the folder are the same.

    Args:
        folder: The folder of the run.
        config: The options.
        free: Options that may differ.

    Raises:
        ValueError: If the folder holds another run, or its options cannot be read.
        OSError: If it cannot be written.
    """
    described = config.as_json()
    if (folder / RECORD).exists():
        # a run of a version that did not have an option had its default
        kept = read_record(folder / RECORD)
        described = {name: x for name, x in described.items() if name in kept or x != getattr(type(config), name)}
    begin(folder, described, "--no-resume to replace it", free)


def check_training(folder: Path) -> None:
    """Check that a folder holds no results of anything else, such as a benchmark.

    Raises:
        ValueError: If it does, or its record is damaged.
        OSError: If its record cannot be read.
    """
    if (folder / RECORD).exists() and str(read_record(folder / RECORD).get("task")) not in tasks():
        raise ValueError(f"{folder} holds no training run, but other results. Choose another folder.")


def read_config(folder: Path) -> Config:
    """The options of the run in a folder.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    try:
        values = read_record(folder / RECORD)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no training run in this folder.") from error
    return configured(str(values.pop("task", "")), values)


def _parsed(name: str, value: Any, kind: Kind) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return kind.read(value)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind.accepted}, not {value!r}.") from error
