"""What an object holds, and copies that hold something else."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.capture.contents import contents, fill, is_changeable, shallow_copy, slots


class Plain:
    def __init__(self, held: Any) -> None:
        self.held = held


class Slotted:
    __slots__ = ("empty", "held")

    def __init__(self, held: Any) -> None:
        self.held = held


class Both(Slotted):
    def __init__(self, held: Any, other: Any) -> None:
        super().__init__(held)
        self.other = other


class Copied:
    def __deepcopy__(self, memo: Any) -> Copied:
        return self


class Reduced:
    def __reduce__(self) -> Any:
        return Reduced, ()


def enclosed(value: Any) -> Any:
    """The variable that a function encloses."""

    def function() -> Any:
        return value

    closure = function.__closure__
    assert closure is not None
    return closure[0]


HOLDING = {
    "list": [1, 2],
    "dict": {1: 2},
    "ordered": OrderedDict({1: 2}),
    "set": {1, 2},
    "deque": deque([1, 2], maxlen=2),
    "plain": Plain([1, 2]),
    "namespace": SimpleNamespace(a=1, b=2),
    "slots": Slotted(1),
    "both": Both(1, 2),
    "variable": enclosed(1),
}


@pytest.mark.parametrize("name", HOLDING)
def test_a_copy_holds_what_replaces_the_parts_and_the_original_stays(name: str) -> None:
    value = HOLDING[name]
    assert is_changeable(type(value))
    before = contents(value)
    copy = shallow_copy(value)
    assert type(copy) is type(value)
    assert copy is not value
    fill(copy, value, lambda part: (part, "new"))
    assert set(map(str, contents(copy))) == {str((part, "new")) for part in before}
    assert contents(value) == before


def test_a_dictionary_keeps_its_order_where_keys_are_replaced() -> None:
    value = {"a": 1, "b": 2, "c": 3}
    copy = dict(value)
    fill(copy, value, lambda part: {"b": "x"}.get(part, part) if isinstance(part, str) else part)
    assert list(copy.items()) == [("a", 1), ("x", 2), ("c", 3)]


def test_a_set() -> None:
    copy = {1, 2}
    fill(copy, {1, 2}, lambda part: part * 10)
    assert copy == {10, 20}


def test_what_stays_whole() -> None:
    for value in (int, threading, nn.Linear(1, 1), torch.ones(1), test_a_set, Copied(), Reduced()):
        assert not is_changeable(type(value)), value
        assert shallow_copy(value) is None
    for value in ("text", 1, object()):  # there is nothing in it
        assert shallow_copy(value) is None
    assert shallow_copy(threading.Lock()) is None  # it cannot be copied


def test_a_class_that_cannot_be_copied_stays_as_it_is() -> None:
    class Refuses(dict[str, int]):
        def __copy__(self) -> Any:
            raise RuntimeError("no")

    assert is_changeable(Refuses)
    assert shallow_copy(Refuses(a=1)) is None


def test_contents_of_a_class_with_elements_and_attributes() -> None:
    class Named(defaultdict[str, int]):
        name = "class attributes are not its own"

        def __init__(self, label: str) -> None:
            super().__init__(int, {"a": 1})
            self.label = label

    value = Named("own")
    assert contents(value) == ["own", "a", 1]


def test_slots_of_all_bases_that_are_filled() -> None:
    class More(Both):
        __slots__ = ("more",)

    value = More(1, 2)
    assert [part for part, _ in slots(value)] == [1]
    value.more = 3
    assert sorted(part for part, _ in slots(value)) == [1, 3]
    for _, member in slots(value):
        member.__set__(value, 7)
    assert (value.more, value.held, value.other) == (7, 7, 2)


def test_a_variable_without_a_value() -> None:
    def outer() -> Any:
        def inner() -> Any:
            return later

        found = inner.__closure__
        if found is None:
            later = 1
        return found

    closure = outer()
    assert contents(closure[0]) == []
    fill(enclosed(1), closure[0], lambda part: part)
