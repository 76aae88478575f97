"""What leads to a part of a model leads to the copy's part afterwards, and the original is as it was."""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.capture.links import Links, is_plain

Pair = namedtuple("Pair", "first second")


class _Part(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def told(self) -> str:
        return self.name


def _linked() -> tuple[Links, _Part, _Part]:
    part, copy = _Part("own"), _Part("copy")
    links = Links(torch.Tensor.clone)
    links.know(part, copy)
    return links, part, copy


def _closure(part: _Part) -> Callable[[], str]:
    return lambda: part.name


def _default(part: _Part) -> Callable[[], str]:
    def told(one: _Part = part, *, other: _Part = part) -> str:
        assert one is other
        return one.name

    return told


def _attribute(part: _Part) -> Callable[[], str]:
    def told() -> str:
        return "own"

    told.part = part
    return told


WAYS: dict[str, tuple[Callable[[_Part], Any], Callable[[Any], _Part]]] = {
    "itself": (lambda part: part, lambda found: found),
    "list": (lambda part: [1, part], lambda found: found[1]),
    "dict": (lambda part: OrderedDict(a=part), lambda found: found["a"]),
    "key": (lambda part: {part: 1}, lambda found: next(iter(found))),
    "set": (lambda part: {part}, lambda found: next(iter(found))),
    "frozenset": (lambda part: frozenset([part]), lambda found: next(iter(found))),
    "deque": (lambda part: deque([part]), lambda found: found[0]),
    "tuple": (lambda part: (2, (part,)), lambda found: found[1][0]),
    "named tuple": (lambda part: Pair(1, part), lambda found: found.second),
    "object": (lambda part: SimpleNamespace(part=part), lambda found: found.part),
    "closure": (_closure, lambda found: found.__closure__[0].cell_contents),
    "defaults": (_default, lambda found: found.__defaults__[0]),
    "keyword defaults": (_default, lambda found: found.__kwdefaults__["other"]),
    "function's attribute": (_attribute, lambda found: found.part),
    "method": (lambda part: part.told, lambda found: found.__self__),
    "partial": (lambda part: partial(print, part, end=part), lambda found: found.args[0]),
    "partial's keyword": (lambda part: partial(print, end=part), lambda found: found.keywords["end"]),
    "weak": (weakref.ref, lambda found: found()),
    "weak method": (lambda part: weakref.WeakMethod(part.told), lambda found: found().__self__),
    "weak proxy": (weakref.proxy, lambda found: found.__repr__.__self__),
    "method of a list": (lambda part: [part].append, lambda found: found.__self__[0]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_part_leads_to_the_copy_of_it(way: str) -> None:
    links, part, copy = _linked()
    make, reach = WAYS[way]
    value = make(part)
    found = links.of(value)
    assert type(found) is type(value) or way == "itself"
    assert reach(found) is copy
    assert reach(value) is part


def test_what_is_called_runs_with_the_copy() -> None:
    links, part, _ = _linked()
    for make in (_closure, _default, lambda part: part.told, lambda part: partial(_Part.told, part)):
        assert (links.of(make(part))(), make(part)()) == ("copy", "own")


@pytest.mark.parametrize(
    "value", [None, 3, "a", torch.float32, int, [1, [2]], {"a": (1, 2)}, print, SimpleNamespace(a=1), torch.ones(2)],
    ids=str,
)  # fmt: skip
def test_what_leads_to_no_part_stands_for_itself(value: Any) -> None:
    links, _, _ = _linked()
    assert links.of(value) is value
    assert links.of(value) is value  # and is remembered as such


def test_a_parameter_leads_to_a_stand_in_wherever_it_is_met() -> None:
    links, _, _ = _linked()
    weight = nn.Parameter(torch.ones(2))
    first, second = links.of([weight]), links.of({"w": weight})
    assert first[0] is second["w"] is not weight
    assert torch.equal(first[0], weight)


def test_what_is_the_same_stays_the_same() -> None:
    links, part, _ = _linked()
    shared = [part]
    one, other, again = links.of(shared), links.of({"a": shared})["a"], links.of(shared)
    assert one is other is again


def test_circles_are_closed() -> None:
    links, part, copy = _linked()
    circle: list[Any] = [part]
    circle += [{"back": circle}, circle]
    found = links.of(circle)
    assert found is not circle
    assert found[0] is copy
    assert found[1]["back"] is found[2] is found
    assert circle[2] is circle


def test_a_dead_reference_is_left() -> None:
    links, _, _ = _linked()
    gone = _Part("gone")
    reference, proxy = weakref.ref(gone), weakref.proxy(gone)
    del gone
    assert links.of(reference) is reference
    assert links.of((proxy,))[0] is proxy


def test_what_a_module_keeps_is_copied_even_if_it_leads_nowhere() -> None:
    links, _, _ = _linked()
    numbers, tensor, generator = [1, 2], torch.ones(3), torch.Generator().manual_seed(4)
    links.claim([numbers, (tensor, {"again": tensor}), generator, 5])
    copied = links.of(numbers)
    copied.append(3)
    assert (numbers, copied) == ([1, 2], [1, 2, 3])
    assert links.of(tensor) is not tensor
    assert links.of((tensor,))[0] is links.of(tensor)
    own = links.of(generator)
    assert own is not generator
    assert torch.equal(torch.rand(3, generator=own), torch.rand(3, generator=generator))


def test_known_things_are_known_by_identity() -> None:
    links, part, _ = _linked()
    assert links.knows(part)
    assert not links.knows(_Part("own"))
    links.of([part, numbers := [1]])
    assert links.knows(numbers)  # it stands for itself


def test_plain_values() -> None:
    assert all(
        map(is_plain, (None, True, 1, 1.5, 2j, "", b"", int, torch.float16, torch.device("cpu"), torch.Size([1])))
    )
    assert not any(map(is_plain, ([], (), {}, torch.ones(1), print, _Part("a"))))
