"""Datasets by a word, each registered in the file of its reader."""

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
    """A dataset that is known by a word.

    Attributes:
        word: As in ``--data WORD:PATH``.
        read: From the path to its samples, `captum_astro.data.samples.Samples`; with ``limited``, from the path and the
            limit.
        place: What the path is, in messages; empty where there is none.
        limited: Whether the reader takes the limit itself.
        human: From the path and the limit to samples with human maps, where it has them; more than the limit may come.
    """

    word: str
    read: Callable[..., Any]
    place: str
    limited: bool
    human: Callable[[Path, int | None], Iterable[HumanSample]] | None

    @property
    def form(self) -> str:
        """How it is written, ``word:FOLDER``."""
        return f"{self.word}:{self.place}" if self.place else self.word


def register_data(
    word: str,
    *,
    place: str = "FOLDER",
    limited: bool = False,
    human: Callable[[Path, int | None], Iterable[HumanSample]] | None = None,
) -> Callable[[R], R]:
    """A decorator that makes a reader known to ``--data``.

    Files in ``captum_astro/data/`` are found by themselves; a reader of your own is known once its module is imported.

    Args:
        word: Before the colon.
        place: What stands after it, in messages: ``FOLDER``, ``FILE``, ``PATH``, or nothing.
        limited: The reader takes the limit as its second argument.
        human: For ``captum-astro vita``: from the path and the limit to samples with human maps.

    Raises:
        ValueError: If another reader has the word, or it is none.

    Example:
        >>> @register_data("three numbers", place="FILE")
        ... class Numbers:
        ...     pass
        Traceback (most recent call last):
            ...
        ValueError: A dataset's word has letters, digits and hyphens alone: 'three numbers'.
    """
    if not word or not all(letter.isalnum() or letter in "-_" for letter in word):
        raise ValueError(f"A dataset's word has letters, digits and hyphens alone: {word!r}.")

    def decorated(read: R) -> R:
        other = _REGISTERED.get(word)
        if other is not None and other.read.__module__ != read.__module__:
            raise ValueError(f"There is a dataset {word!r} already, in {other.read.__module__}: give another word.")
        _REGISTERED[word] = Source(word, read, place, limited, human)
        return read

    return decorated


def sources() -> dict[str, Source]:
    """All datasets by their words: those without a path first, then by name.

    Example:
        >>> list(sources())[:3]
        ['scenes', 'boxes', 'cifar10']
    """
    _discover()
    ordered = sorted(_REGISTERED.values(), key=lambda source: (bool(source.place), source.word))
    return {source.word: source for source in ordered}


@cache
def _discover() -> None:
    """Import the files beside this one, which register their readers."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            import_module(f"captum_astro.data.{module.name}")
