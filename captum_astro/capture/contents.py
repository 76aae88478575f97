"""What an object that can be changed holds: a container, an instance of a plain class, or an enclosed variable."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from types import CellType, FunctionType, MemberDescriptorType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

_CONTAINERS = (list, dict, set, deque)
_WHOLE = (type, ModuleType, FunctionType, nn.Module, torch.Tensor, *weakref.ProxyTypes)  # never plain


def is_changeable(kind: type) -> bool:
    """Whether instances of a class are containers, enclosed variables or plain.

    A class is plain if Python copies it by its attributes, because it defines no other way.
    """
    return issubclass(kind, _CONTAINERS) or kind is CellType or _is_plain(kind)


def shallow_copy(value: Any) -> Any:
    """A copy that holds the same; None if there is none, or nothing in it."""
    kind = type(value)
    if not is_changeable(kind):
        return None
    if kind is CellType:
        return CellType()
    try:
        found = copy.copy(value)
    except Exception:  # whatever the user's class raises: it stays as it is
        return None
    empty = not isinstance(found, _CONTAINERS) and not contents(found)
    return None if found is value or empty else found


def contents(value: Any) -> list[Any]:
    """What it holds: elements, keys, values and attributes."""
    if isinstance(value, CellType):
        return _content(value)
    held = [part for part, _ in _attributes(value)]
    if isinstance(value, dict):
        return [*held, *value.keys(), *value.values()]
    return [*held, *value] if isinstance(value, _CONTAINERS) else held


def fill(copy: Any, value: Any, of: Callable[[Any], Any]) -> None:
    """Replace what a shallow copy holds.

    Args:
        copy: The copy, changed in place.
        value: What it is a copy of.
        of: Returns what replaces a part.
    """
    if isinstance(copy, CellType):
        for part in _content(value):
            copy.cell_contents = of(part)
        return
    for part, put in list(_attributes(copy)):
        put(of(part))
    if isinstance(copy, dict):
        pairs = [(of(key), of(part)) for key, part in copy.items()]
        if any(new is not old for (new, _), old in zip(pairs, copy, strict=True)):
            copy.clear()
        for key, part in pairs:
            copy[key] = part
    elif isinstance(copy, set | list | deque):
        parts = [of(part) for part in copy]
        copy.clear()
        put_all = copy.update if isinstance(copy, set) else copy.extend
        put_all(parts)


def slots(value: Any) -> Iterator[tuple[Any, MemberDescriptorType]]:
    """The contents of an instance's slots, and the slots."""
    kind: type = type(value)
    for member in _members(kind):
        with contextlib.suppress(AttributeError):  # an empty one
            yield member.__get__(value), member


@lru_cache(maxsize=4096)
def _members(kind: type) -> tuple[MemberDescriptorType, ...]:
    slotted = [vars(base).values() for base in kind.__mro__ if "__slots__" in vars(base)]
    return tuple(member for members in slotted for member in members if isinstance(member, MemberDescriptorType))


def _content(cell: CellType) -> list[Any]:
    """What an enclosed variable is; empty if it has no value."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _attributes(value: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """The contents of an instance's attributes, and how to replace each."""
    attributes = getattr(value, "__dict__", {})
    for name, part in tuple(attributes.items()):
        yield part, partial(attributes.__setitem__, name)
    for part, member in slots(value):
        yield part, partial(member.__set__, value)


def _is_plain(kind: type) -> bool:
    if issubclass(kind, _WHOLE) or hasattr(kind, "__deepcopy__"):
        return False
    usual = all(getattr(kind, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__"))
    return usual or kind is SimpleNamespace
