"""Registries by class: a class itself, or its dotted path, so that its library need not be imported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

Class = type | str
Value = TypeVar("Value")


def registered(registry: Mapping[Class, Value], kind: type) -> Value | None:
    """What is registered for a class, or for the nearest of its bases; None if nothing is.

    Args:
        registry: Values by class, or by dotted path.
        kind: The class.

    Example:
        >>> registered({"collections.OrderedDict": 1, dict: 2}, __import__("collections").OrderedDict)
        1
    """
    return next((registry[key] for key in _keys(kind) if key in registry), None)


@lru_cache(maxsize=4096)  # a model has hundreds of modules of a few classes
def _keys(kind: type) -> tuple[Class, ...]:
    return tuple(key for base in kind.__mro__ for key in (base, f"{base.__module__}.{base.__qualname__}"))


def class_name(key: Class) -> str:
    """The name of a class that a registry has as a key."""
    return key.rpartition(".")[2] if isinstance(key, str) else key.__name__
