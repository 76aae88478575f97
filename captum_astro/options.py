"""Options given as text, in one grammar for the whole command line.

::

    NAME:OPTION=VALUE:OPTION=VALUE   a method, or a model under astrocytes: VTranM:output=logit:layers=0+1
    OPTION=VALUE,OPTION=VALUE        options alone, as in --vita: k=6,layer=blocks.0.mlp.fc1
    VALUE,VALUE                      values to try, as in --k: 4,6,8

A value is text, a number, ``true``, ``false``, or ``none`` where None is allowed; several values are joined with ``+``.
The type of an option is read from the annotation of the function that receives it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union


@dataclass(frozen=True)
class Kind:
    """The type of an option.

    Attributes:
        read: Converts text to the value; raises ValueError for invalid text.
        accepted: Description of the accepted values.
    """

    read: Callable[[str], Any]
    accepted: str


def named_values(word: str, parts: Iterable[str], known: Mapping[str, Kind]) -> dict[str, Any]:
    """Parse options into a dictionary of values.

    Args:
        word: What the options belong to, for messages.
        parts: Texts of the form ``NAME=VALUE``.
        known: The type of each option.

    Raises:
        ValueError: If a part has another form, its name is unknown or repeated, or its value is invalid.

    Example:
        >>> named_values("--vita", ["k=6"], {"k": kind_of(int)})
        {'k': 6}
        >>> named_values("--vita", ["k=six"], {"k": kind_of(int)})
        Traceback (most recent call last):
            ...
        ValueError: --vita: k must be a whole number, not 'six'.
    """
    texts = named_texts(word, parts, known)
    return {name: _value(f"{word}: {name}", text, known[name]) for name, text in texts.items()}


def named_texts(word: str, parts: Iterable[str], known: Collection[str] | None = None) -> dict[str, str]:
    """Parse options like `named_values`, keeping the values as text.

    Args:
        word: What the options belong to, for messages.
        parts: Texts of the form ``NAME=VALUE``.
        known: The allowed names; None allows any.

    Raises:
        ValueError: If a part has another form, or its name is unknown or repeated.
    """
    found: dict[str, str] = {}
    for part in parts:
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or not name or (known is not None and name not in known):
            names = "" if known is None else f" Options: {', '.join(known)}."
            form = "" if equals else " Expected NAME=VALUE."
            raise ValueError(f"{word} has no option {part.strip()!r}.{form}{names}")
        if name in found:
            raise ValueError(f"{word}: {name} is given twice.")
        found[name] = text
    return found


def listed_values(word: str, text: str, kind: Kind) -> list[Any]:
    """Parse comma-separated values.

    Args:
        word: What the values belong to, for messages.
        text: The values.
        kind: The type of each value.

    Raises:
        ValueError: If a value is invalid.

    Example:
        >>> listed_values("--k", "4, 6,8", kind_of(int))
        [4, 6, 8]
    """
    return [_value(word, part.strip(), kind) for part in text.split(",") if part.strip()]


def options_of(function: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Kind]:
    """The keyword options of a function, from its annotations.

    Args:
        function: The function; for a class its ``__init__`` is used.
        without: Names to leave out.

    Example:
        >>> def explain(inputs, output: Literal["probability", "logit"], layers: Iterable[int] | None = None): ...
        >>> {name: kind.accepted for name, kind in options_of(explain, without=["inputs"]).items()}
        {'output': 'probability or logit', 'layers': 'whole numbers joined with +, or none'}
    """
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a name that is imported for type checkers only
        hints = {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: kind_of(hints.get(name, str))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in by_name and name not in (*without, "self")
    }


def kind_of(hint: Any) -> Kind:
    """The type of an option with this annotation; text if there is none.

    Example:
        >>> kind_of(bool).read("false"), kind_of(str | None).read("none"), kind_of(tuple[int, ...]).read("0+1")
        (False, None, (0, 1))
    """
    return _known(hint) or Kind(str, "text")


def _known(hint: Any) -> Kind | None:
    simple = {
        bool: Kind(_flag, "true or false"),
        int: Kind(int, "a whole number"),
        float: Kind(float, "a number"),
        str: Kind(str, "text"),
    }
    if hint in simple:
        return simple[hint]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return Kind(lambda text: _choice(text, inside), _either([str(value) for value in inside]))
    if origin in (Union, types.UnionType):
        return _one_of([kind for part in inside if (kind := _known(part))], optional=type(None) in inside)
    if isinstance(origin, type) and issubclass(origin, Iterable) and inside:
        item = kind_of(inside[0])
        return Kind(lambda text: tuple(item.read(part) for part in text.split("+") if part), _several(item))
    return None


def _one_of(kinds: Sequence[Kind], optional: bool) -> Kind | None:
    if not kinds:
        return None

    def read(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        for kind in kinds[:-1]:
            try:
                return kind.read(text)
            except ValueError:  # noqa: PERF203
                continue
        return kinds[-1].read(text)

    accepted = " or ".join(kind.accepted for kind in kinds)
    return Kind(read, f"{accepted}, or none" if optional else accepted)


def _several(item: Kind) -> str:
    plural = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts"}
    return f"{plural.get(item.accepted, 'any of ' + item.accepted.replace(' or ', ', '))} joined with +"


def _value(where: str, text: str, kind: Kind) -> Any:
    try:
        return kind.read(text)
    except ValueError as error:
        raise ValueError(f"{where} must be {kind.accepted}, not {text!r}.") from error


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _choice(text: str, values: Sequence[Any]) -> Any:
    for value in values:
        if text == str(value):
            return value
    raise ValueError(text)


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
