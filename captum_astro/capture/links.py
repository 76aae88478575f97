"""What leads from one part of a model to another, made to lead to the parts of a copy."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType
from typing import Any

import torch
from torch import nn

from captum_astro.capture.contents import contents, fill, is_changeable, shallow_copy

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size))
_BUILT_IN = (BuiltinFunctionType, MethodWrapperType)
_WEAK = (weakref.ref, weakref.WeakMethod)


class Links:
    """Stand-ins for the parts of a model, and for whatever leads to them.

    Args:
        tensor: Returns what stands for a tensor.
    """

    def __init__(self, tensor: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._tensor = tensor
        # two containers instead of thousands of pairs, which would keep the garbage collector busy
        self._known: dict[int, Any] = {}  # by identity: what replaces what was met
        self._alive: list[Any] = []  # what was met, so that nothing else gets its identity
        self._unfilled: list[tuple[Any, Any]] = []  # filled last, because they may contain each other

    def know(self, value: Any, copy: Any) -> None:
        """Let something stand for a value."""
        self._known[id(value)] = copy
        self._alive.append(value)

    def knows(self, value: Any) -> bool:
        """Whether something stands for a value, or the value itself does."""
        return id(value) in self._known

    def claim(self, state: Iterable[Any]) -> None:
        """Copy what a module keeps: tensors, containers and plain objects, and all of these in them."""
        waiting = list(state)
        while waiting:
            value = waiting.pop()
            kind = type(value)
            if kind in _PLAIN or id(value) in self._known:
                continue
            if issubclass(kind, torch.Tensor):
                self.know(value, self._tensor(value))
            elif issubclass(kind, torch.Generator):
                self.know(value, torch.Generator(value.device).set_state(value.get_state()))
            elif issubclass(kind, tuple):
                waiting += value
            elif self._begun(value):
                waiting += contents(self._known[id(value)])

    def of(self, value: Any) -> Any:
        """What stands for a value: itself, if it leads to nothing that something else stands for."""
        if is_plain(value):
            return value
        found = self._of(value)
        while self._unfilled:
            fill(*self._unfilled.pop(), self._of)
        return found

    def _of(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if not self.knows(value) and self._leads(value) and not self._begun(value):
            self.know(value, self._made(value))
        return self._known.get(id(value), value)

    def _begun(self, value: Any) -> bool:
        """Begin the copy of what can be changed, to be filled later; False if it cannot."""
        copy = shallow_copy(value)
        if copy is not None:
            self.know(value, copy)
            self._unfilled.append((copy, value))
        return copy is not None

    def _leads(self, value: Any) -> bool:
        met: dict[int, Any] = {}
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if type(one) in _PLAIN or id(one) in met:
                continue
            if self.knows(one):
                if self._known[id(one)] is not one:
                    return True
                continue
            if issubclass(type(one), nn.Parameter) or _compiled(one) is not None:
                return True
            met[id(one)] = one
            waiting += _parts(one)
        for one in met.values():
            self.know(one, one)
        return False

    def _made(self, value: Any) -> Any:
        """A copy of something that cannot be filled later."""
        kind = type(value)
        if issubclass(kind, torch.Tensor):
            return self._tensor(value)
        if issubclass(kind, tuple):
            return tuple.__new__(kind, map(self._of, value))
        if kind is frozenset:
            return frozenset(map(self._of, value))
        if kind is FunctionType:
            return self._function(value)
        if kind is MethodType:
            return MethodType(self._of(value.__func__), self._of(value.__self__))
        if kind in _BUILT_IN:
            return getattr(self._of(value.__self__), value.__name__)
        if kind is partial:
            # one by one: their dictionary would be filled after it has been taken apart
            keywords = {name: self._of(part) for name, part in value.keywords.items()}
            return partial(self._of(value.func), *self._of(value.args), **keywords)
        if kind in weakref.ProxyTypes:
            return weakref.proxy(*map(self._of, _parts(value)))
        return kind(*map(self._of, _parts(value))) if kind in _WEAK else value

    def _function(self, function: FunctionType) -> Any:
        if (code := _compiled(function)) is not None:
            return self._of(code)
        closure, defaults, keywords, attributes = (self._of(part) for part in _parts(function))
        copy = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, closure)
        copy.__kwdefaults__, copy.__dict__ = keywords, attributes
        return copy


def is_plain(value: Any) -> bool:
    """Whether a value leads nowhere and cannot change, such as a number or a text."""
    return type(value) in _PLAIN


def _compiled(value: Any) -> Any:
    """The function that a compiled one was made from; None if it is none."""
    return getattr(value, "_torchdynamo_orig_callable", None) if type(value) is FunctionType else None


def _parts(value: Any) -> list[Any]:
    """What a value leads to."""
    kind = type(value)  # isinstance would ask a weak proxy for its model
    if kind is FunctionType:
        return [value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value)]
    if kind is MethodType:
        return [value.__func__, value.__self__]
    if kind in _BUILT_IN:
        return [value.__self__]
    if kind is partial:
        return [value.func, value.args, value.keywords]
    if kind in _WEAK:
        return [] if value() is None else [value()]
    if kind in weakref.ProxyTypes:
        try:
            return [value.__repr__.__self__]
        except ReferenceError:
            return []
    if issubclass(kind, tuple) or kind is frozenset:
        return [*value]
    return contents(value) if is_changeable(kind) else []
