"""Kinds of option values: how text is read, which values are valid, and how that is said."""

from __future__ import annotations

import contextlib
import math
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Union


def _anything(value: Any) -> bool:
    del value
    return True


@dataclass(frozen=True)
class Kind:
    """The kind of an option's value.

    Attributes:
        read: Converts text to the value; raises ValueError for invalid text.
        accepted: Description of the valid values.
        holds: Whether a value that is not text is valid.
    """

    read: Callable[[str], Any]
    accepted: str
    holds: Callable[[Any], bool] = _anything

    def check(self, name: str, value: Any) -> None:
        """Validate a value.

        Args:
            name: The option, for the message.
            value: Its value.

        Raises:
            ValueError: If it is not valid.

        Example:
            >>> whole(least=1).check("limit", 0)
            Traceback (most recent call last):
                ...
            ValueError: limit must be a whole number of at least 1, not 0.
        """
        if not self.holds(value):
            raise ValueError(f"{name} must be {self.accepted}, not {value!r}.")


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """A whole number, from ``least`` to ``most``.

    Example:
        >>> whole(least=1, most=9).accepted, whole().read("3")
        ('a whole number from 1 to 9', 3)
    """

    def holds(value: Any) -> bool:
        return isinstance(value, Integral) and _is_number(value) and _within(int(value), least, most)

    if least is not None and most is not None:
        return Kind(_reader(int, holds), f"a whole number from {least} to {most:,}", holds)
    return Kind(_reader(int, holds), "a whole number" + ("" if least is None else f" of at least {least}"), holds)


def number(least: float | None = None, *, above: float | None = None, below: float | None = None) -> Kind:
    """A finite number: at least ``least``, above ``above``, and below ``below``.

    Example:
        >>> number(least=0, below=1).accepted, number().read("1e-3")
        ('a number of at least 0 and below 1', 0.001)
    """

    def holds(value: Any) -> bool:
        return (
            _is_number(value)
            and math.isfinite(value)
            and _within(value, least, None)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    limits = [f"{word} {limit:g}" for word, limit in (("of at least", least), ("above", above), ("below", below))
              if limit is not None]  # fmt: skip
    return Kind(_reader(float, holds), " ".join(["a number", " and ".join(limits)]).strip(), holds)


def choice(*values: Any) -> Kind:
    """One of some values, written as their text.

    Example:
        >>> choice("timm", "none").accepted, choice("timm", "none").read("none")
        ('timm or none', 'none')
    """
    by_text = {str(value): value for value in values}
    *first, last = by_text
    accepted = f"{', '.join(first)} or {last}" if first else last

    def read(text: str) -> Any:
        if text not in by_text:
            raise ValueError(text)
        return by_text[text]

    return Kind(read, accepted, lambda value: value in values)


def kind_of(hint: Any) -> Kind:
    """The kind of an option with this annotation, such as ``Annotated[int, whole(least=1)]``; text if there is none.

    Example:
        >>> kind_of(bool).read("false"), kind_of(str | None).read("none"), kind_of(tuple[int, ...]).read("0+1")
        (False, None, (0, 1))
    """
    return _known(hint) or TEXT


TEXT = Kind(str, "text")
FLAG = Kind(
    lambda text: choice("true", "false").read(text.lower()) == "true",
    "true or false",
    lambda value: type(value).__name__ in ("bool", "bool_"),  # NumPy's too
)


def _known(hint: Any) -> Kind | None:
    simple = {bool: FLAG, int: whole(), float: number(), str: TEXT}
    if hint in simple:
        return simple[hint]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return next((one for one in inside if isinstance(one, Kind)), _known(inside[0]))
    if origin is Literal:
        return choice(*inside)
    if origin in (Union, types.UnionType):
        kinds = [kind for part in inside if (kind := _known(part))]
        return _one_of(kinds, optional=type(None) in inside) if kinds else None
    if isinstance(origin, type) and issubclass(origin, Iterable) and inside:
        item = kind_of(inside[0])
        return Kind(lambda text: tuple(item.read(part) for part in text.split("+")) if text else (), _several(item))
    return None


def _one_of(kinds: Sequence[Kind], optional: bool) -> Kind:

    def read(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        for kind in kinds[:-1]:
            with contextlib.suppress(ValueError):
                return kind.read(text)
        return kinds[-1].read(text)

    def holds(value: Any) -> bool:
        return (optional and value is None) or any(kind.holds(value) for kind in kinds)

    accepted = " or ".join(kind.accepted for kind in kinds)
    return Kind(read, f"{accepted}, or none" if optional else accepted, holds)


def _several(item: Kind) -> str:
    plural = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts"}
    return f"{plural.get(item.accepted, 'any of ' + item.accepted.replace(' or ', ', '))} joined with +"


def _reader(convert: Callable[[str], Any], holds: Callable[[Any], bool]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = convert(text)
        if not holds(value):
            raise ValueError(text)
        return value

    return read


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)
