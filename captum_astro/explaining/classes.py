"""A model's classes: their names, and which of them a user means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch

Wanted = int | str | None
_MOST = 8  # candidates in a message


@dataclass(frozen=True)
class Class:
    """A class, and its probability for one image, from 0 to 1."""

    index: int
    name: str
    probability: float

    @property
    def short(self) -> str:
        """The first of its names: ImageNet's classes have several."""
        return _first(self.name)

    def __str__(self) -> str:
        return f"{self.short} {self.probability:.0%}"


def index_of(wanted: Wanted, probabilities: torch.Tensor, names: Sequence[str], option: str = "target") -> int:
    """The index of the class that is meant.

    Args:
        wanted: Its index or one of its names; None or ``"top1"`` for the most probable class.
        probabilities: One for each class, ``(classes,)``.
        names: The names of each class, joined with commas.
        option: What the value belongs to, for messages.

    Raises:
        ValueError: If there is no such class, or more than one. The message lists candidates.

    Example:
        >>> index_of("tabby", torch.zeros(2), ["tabby, tabby cat", "lynx"])
        0
        >>> index_of("cat", torch.zeros(2), ["tabby, tabby cat", "lynx"])
        Traceback (most recent call last):
            ...
        ValueError: target 'cat': no class has that name; give the index, from 0 to 1. Near: 0 tabby.
    """
    last = len(names) - 1
    if wanted is None or wanted == "top1":
        return int(probabilities.argmax())
    if isinstance(wanted, bool) or not isinstance(wanted, Integral | str):
        raise ValueError(f"{option} must be the index or name of a class, or a list of them, not {wanted!r}.")
    if isinstance(wanted, Integral) or wanted.lstrip("-").isdecimal():
        if not 0 <= int(wanted) <= last:
            raise ValueError(f"{option} {wanted}: the model's classes run from 0 to {last}.")
        return int(wanted)
    found = [index for index, name in enumerate(names) if _plain(wanted) in map(_plain, name.split(","))]
    if len(found) == 1:
        return found[0]
    have = f"{len(found)} classes have" if found else "no class has"
    candidates = (found or _near(wanted, names))[:_MOST]
    near = f" Near: {', '.join(f'{index} {_first(names[index])}' for index in candidates)}." if candidates else ""
    raise ValueError(f"{option} {wanted!r}: {have} that name; give the index, from 0 to {last}.{near}")


def _near(wanted: str, names: Sequence[str]) -> list[int]:
    """The classes with this word in a name, otherwise those with a similar name."""
    word = re.compile(rf"\b{re.escape(_plain(wanted))}\b")
    found = [index for index, name in enumerate(names) if word.search(_plain(name))]
    if found:
        return found
    by_name = {_plain(part): index for index, name in enumerate(names) for part in name.split(",")}
    return list(dict.fromkeys(by_name[name] for name in difflib.get_close_matches(_plain(wanted), by_name, _MOST)))


def _first(name: str) -> str:
    return name.split(",", maxsplit=1)[0]


def _plain(name: str) -> str:
    return name.strip().lower()
