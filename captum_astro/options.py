"""Options given as text, in one grammar for the whole command line.

::

    NAME:OPTION=VALUE:OPTION=VALUE   a method, or a model under astrocytes: VTranM:output=logit:layers=0+1
    OPTION=VALUE,OPTION=VALUE        options alone, as in --vita: k=6,layer=blocks.0.mlp.fc1
    VALUE,VALUE                      values to try, as in --k: 4,6,8

A value is text, a finite number, ``true``, ``false``, or ``none`` where None is allowed; several values are joined with
``+``. The type of an option is read from the annotation of the function that receives it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from captum_astro.kinds import Kind, kind_of


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
            form = "" if equals and name else " Expected NAME=VALUE."
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
        ValueError: If there is none, or one is invalid.

    Example:
        >>> listed_values("--k", "4, 6,8", kind_of(int))
        [4, 6, 8]
    """
    return [_value(word, part, kind) for part in listed(word, text)]


def listed(word: str, text: str) -> list[str]:
    """Split comma-separated texts.

    Args:
        word: What they belong to, for messages.
        text: The texts; spaces around them are ignored, as is a comma at the end.

    Raises:
        ValueError: If there is none.

    Example:
        >>> listed("--methods", "VTranM, LRP")
        ['VTranM', 'LRP']
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError(f"{word} names nothing: {text!r}. Give at least one value, or leave it out.")
    return found


def options_of(function: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Kind]:
    """The keyword options of a function, from its annotations.

    Args:
        function: The function; for a class its ``__init__`` is used.
        without: Names to leave out.

    Example:
        >>> from typing import Iterable, Literal
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


def _value(where: str, text: str, kind: Kind) -> Any:
    try:
        return kind.read(text)
    except ValueError as error:
        raise ValueError(f"{where} must be {kind.accepted}, not {text!r}.") from error
