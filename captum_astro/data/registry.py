"""Datasets by name, each registered in the file of its reader."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from captum_astro.data.human import HumanSample

R = TypeVar("R", bound=Callable[..., Any])
_REGISTERED: dict[str, Source] = {}


@dataclass(frozen=True)
class Source:
    """A dataset that is registered under a name.

    Attributes:
        word: The name, as in ``--data WORD:PATH``.
        read: Returns the samples, `captum_astro.data.samples.Samples`, for a path; with ``limited``, for a path and a
            limit.
        place: The kind of path, for messages; empty if there is none.
        limited: Whether the reader applies the limit itself.
        human: Returns samples with human maps for a path and a limit, if there are any; may return more than the limit.
    """

    word: str
    read: Callable[..., Any]
    place: str
    limited: bool
    human: Callable[[Path, int | None], Iterable[HumanSample]] | None

    @property
    def form(self) -> str:
        """How it is written on the command line, ``word:FOLDER``."""
        return f"{self.word}:{self.place}" if self.place else self.word


def register_data(
    word: str,
    *,
    place: str = "FOLDER",
    limited: bool = False,
    human: Callable[[Path, int | None], Iterable[HumanSample]] | None = None,
) -> Callable[[R], R]:
    """A decorator that registers a reader for ``--data``.

    Files in ``captum_astro/data/`` are discovered automatically; your own reader is available once its module is
    imported.

    Args:
        word: The name before the colon.
        place: The kind of path after it, for messages: ``FOLDER``, ``FILE``, ``PATH``, or nothing.
        limited: The reader takes the limit as its second argument.
        human: For ``captum-astro vita``: returns samples with human maps for a path and a limit.

    Raises:
        ValueError: If another reader has the name, or it is invalid.

    Example:
        >>> @register_data("three numbers", place="FILE")
        ... class Numbers:
        ...     pass
        Traceback (most recent call last):
            ...
        ValueError: A dataset's name may have only letters, digits and hyphens: 'three numbers'.
    """
    if not word or not all(letter.isalnum() or letter in "-_" for letter in word):
        raise ValueError(f"A dataset's name may have only letters, digits and hyphens: {word!r}.")

    def decorated(read: R) -> R:
        other = _REGISTERED.get(word)
        if other is not None and other.read.__module__ != read.__module__:
            raise ValueError(f"There is already a dataset {word!r}, in {other.read.__module__}: choose another name.")
        _REGISTERED[word] = Source(word, read, place, limited, human)
        return read

    return decorated


def sources() -> dict[str, Source]:
    """All datasets by name: those without a path first, then in alphabetical order.

    Example:
        >>> list(sources())[:3]
        ['scenes', 'boxes', 'cifar10']
    """
    _discover()
    ordered = sorted(_REGISTERED.values(), key=lambda source: (bool(source.place), source.word))
    return {source.word: source for source in ordered}


@cache
def _discover() -> None:
    """Import the other files in this folder, which register their readers."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            import_module(f"captum_astro.data.{module.name}")
