from __future__ import annotations

import gc
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from captum_astro import VTranM
from captum_astro.capture.replica import Replica
from tests.families import FAMILIES, HIERARCHICAL, build, images


@pytest.mark.parametrize("name", [*FAMILIES, *HIERARCHICAL])
def test_it_computes_the_same_from_the_same_weights(name: str) -> None:
    model, x = build(name).requires_grad_(False), images(name, 1)
    expected = model(x)
    copy = Replica(model.requires_grad_(True)).model
    torch.testing.assert_close(copy(x), expected, rtol=1e-12, atol=1e-12)  # a kernel may differ: attention is fused
    assert not {id(m) for m in model.modules()} & {id(m) for m in copy.modules()}
    for (path, mine), (same, theirs) in zip(copy.named_parameters(), model.named_parameters(), strict=True):
        assert path == same
        assert mine.data_ptr() == theirs.data_ptr()
        assert not mine.requires_grad


def test_widened() -> None:
    model, x = build("cls", torch.bfloat16), images("cls", dtype=torch.bfloat16)
    replica = Replica(model, torch.float64)
    expected = build("cls", torch.bfloat16).double()(x.double())
    assert torch.equal(replica.model(replica.widened(x)), expected)
    assert replica.dtype == torch.bfloat16
    assert replica.widened(torch.tensor([1])).dtype == torch.int64
    assert Replica(build("cls"), torch.float32).model.pos_embed.dtype == torch.float64  # never narrowed
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def test_ties_stay_tied() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.append(model[0])
    model[1].weight = model[0].weight
    copy = Replica(model, torch.float64).model
    assert copy[2] is copy[0]
    assert copy[1].weight is copy[0].weight
    assert copy[1].bias is not copy[0].bias


class Reads(nn.Module):
    """A wrapper whose forward pass reads what a hook on its model stores in it."""

    def __init__(self, store: Callable[[Reads], Any]) -> None:
        super().__init__()
        self.inner = build("cls")
        self.hidden = [self.inner]
        self.inner.norm.register_forward_hook(store(self))

    def put(self, *given: Any) -> None:
        self.tokens = given[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden[0].forward_features(x)
        return self.tokens[:, 0]


class Slotted:
    __slots__ = ("wrapper",)

    def __init__(self, wrapper: Reads) -> None:
        self.wrapper = wrapper

    def __call__(self, *given: Any) -> None:
        self.wrapper.put(*given)


@dataclass(frozen=True)
class Data:
    wrapper: Reads

    def put(self, *given: Any) -> None:
        self.wrapper.put(*given)


class Named(NamedTuple):
    wrapper: Reads


class Ring:
    """Two objects that lead to each other, and one of them to the wrapper."""

    def __init__(self, wrapper: Reads) -> None:
        self.other = SimpleNamespace(ring=self)
        self.wrapper = wrapper

    def __call__(self, *given: Any) -> None:
        self.other.ring.wrapper.put(*given)


def _by_default(wrapper: Reads) -> Any:
    return lambda module, args, output, wrapper=wrapper: wrapper.put(output)


def _by_keyword(wrapper: Reads) -> Any:
    return lambda module, args, output, *, wrapper=wrapper: wrapper.put(output)


def _by_itself(wrapper: Reads) -> Any:
    def hook(module: nn.Module, args: Any, output: torch.Tensor, again: bool = True) -> None:
        if again:
            hook(module, args, output, False)
        else:
            wrapper.put(output)

    return hook


def _by_attribute(wrapper: Reads) -> Any:
    def hook(*given: Any) -> None:
        hook.wrapper.put(*given)

    hook.wrapper = wrapper
    return hook


def _within(hold: Callable[[Reads], Any], of: Callable[[Any], Any]) -> Callable[[Reads], Any]:
    """A hook that encloses what holds the wrapper."""

    def store(wrapper: Reads) -> Any:
        held = hold(wrapper)
        return lambda *given: of(held).put(*given)

    return store


STORES: dict[str, Callable[[Reads], Any]] = {
    "method": lambda w: w.put,
    "partial": lambda w: partial(Reads.put, w),
    "slots": Slotted,
    "dataclass": lambda w: Data(w).put,
    "ring": Ring,
    "default": _by_default,
    "keyword": _by_keyword,
    "itself": _by_itself,
    "attribute": _by_attribute,
    "closure": _within(lambda w: w, lambda w: w),
    "weak reference": _within(weakref.ref, lambda r: r()),
    "weak method": _within(lambda w: weakref.WeakMethod(w.put), lambda r: r().__self__),
    "weak proxy": _within(weakref.proxy, lambda p: p),
    "namespace": _within(lambda w: SimpleNamespace(w=w), lambda n: n.w),
    "named tuple": _within(Named, lambda t: t.wrapper),
    "set": _within(lambda w: {w}, lambda s: next(iter(s))),
    "frozen set": _within(lambda w: frozenset([w]), lambda s: next(iter(s))),
    "deque": _within(lambda w: deque([w]), lambda d: d[0]),
    "defaultdict": _within(lambda w: defaultdict(list, w=w), lambda d: d["w"]),
    "key": _within(lambda w: {w: 1}, lambda d: next(iter(d))),
    "attributes": _within(vars, lambda own: SimpleNamespace(put=lambda *given: own.update(tokens=given[-1]))),
    "built-in method": _within(
        lambda w: vars(w).update, lambda put: SimpleNamespace(put=lambda *given: put(tokens=given[-1]))
    ),
}


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_a_hook_of_the_users_acts_on_the_copy(store: Callable[[Reads], Any]) -> None:
    model, x = Reads(store), images("cls")
    with torch.no_grad():
        expected = model(x)
        model.tokens = torch.zeros_like(expected)  # would be read if the hook wrote elsewhere
        assert torch.equal(Replica(model).model(x), expected)
    found = VTranM(model).attribute(x, target=1, attribute_to="tokens")
    assert not model.tokens.any()
    headless = build("cls")
    headless.head = nn.Identity()
    torch.testing.assert_close(found, VTranM(headless).attribute(x, target=1, attribute_to="tokens"))


def test_what_a_hook_writes_to_is_the_users() -> None:
    seen: list[int] = []
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: seen.append(1))
    copy = Replica(model).model
    copy(torch.zeros(1, 2))
    assert seen == [1]
    copy.register_forward_hook(lambda *_: None)
    assert len(model._forward_hooks) == 1


def test_compiled_parts_are_replaced_by_their_code() -> None:
    model = build("cls")
    x, expected = images("cls"), VTranM(build("cls")).attribute(images("cls"), target=1)
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    model.blocks[1].compile(backend="eager")
    model.blocks[2].forward = torch.compile(model.blocks[2].forward, backend="eager")
    torch.testing.assert_close(VTranM(model).attribute(x, target=1), expected)
    assert hasattr(model.blocks[0], "_orig_mod")
    assert torch.compiler.is_compiling() is False


def test_scripted_parts_are_run_as_they_are() -> None:
    model, x = build("cls"), images("cls")
    scripted = torch.jit.script(nn.Sequential(nn.Identity()))
    torch.testing.assert_close(
        VTranM(nn.Sequential(scripted, model)).attribute(x, target=1), VTranM(model).attribute(x, target=1)
    )


class Kept:
    def __init__(self) -> None:
        self.tensors = [torch.zeros(1)]


class Keeps(nn.Module):
    """A module that writes to whatever it keeps."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.memory, self.slot, self.kept = torch.zeros(1), [torch.zeros(1)], Kept()
        self.cache, self.maps = dict[str, torch.Tensor](), (deque[torch.Tensor](), set[int]())
        self.generator = torch.Generator().manual_seed(0)
        self.handle = self.register_forward_hook(lambda module, *_: module.handle.remove())

    def kept_now(self) -> list[Any]:
        return [
            self.calls.clone(),
            self.memory.clone(),
            [x.clone() for x in (*self.slot, *self.kept.tensors)],
            dict(self.cache),
            [list(kept) for kept in self.maps],
            self.generator.get_state(),
            len(self._forward_hooks),
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for kept in (self.calls, self.memory, *self.slot, *self.kept.tensors):
            kept.add_(1)
        scale = self.cache.setdefault("scale", 2 * self.scale)
        self.maps[0].append(x)
        self.maps[1].add(len(x))
        return x * scale + 0 * torch.rand(x.shape, generator=self.generator)


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_what_a_module_keeps_is_not_written_to(dtype: torch.dtype | None) -> None:
    model, x = Keeps(), torch.rand(2, 1)
    before = model.kept_now()
    replica = Replica(model, dtype)
    first, second = (replica.model(replica.widened(x)) for _ in range(2))
    torch.testing.assert_close(model.kept_now(), before, rtol=0, atol=0)
    torch.testing.assert_close([first, second], [replica.widened(4 * x)] * 2)
    assert replica.model.calls == 2
    assert len(replica.model.maps[0]) == 2
    assert torch.equal(model(x), 4 * x)


def test_what_two_modules_keep_together_stays_one() -> None:
    kept: list[int] = []
    model = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model[0].kept, model[1].kept, model.ring = kept, (kept,), [model]
    model.ring.append(model.ring)
    model[0].register_forward_hook(lambda *_: kept.append(1))
    copy = Replica(model).model
    copy[0](torch.zeros(1, 1))
    assert copy[0].kept is copy[1].kept[0]
    assert (copy[0].kept, kept) == ([1], [])
    assert copy.ring[0] is copy
    assert copy.ring[1] is copy.ring


def test_what_cannot_be_copied_is_shared() -> None:
    class Singular:
        def __init__(self) -> None:
            self.parts = [1]

        def __copy__(self) -> Singular:
            raise RuntimeError("there is one of me")

    model = nn.Linear(1, 1)
    model.lock, model.singular, model.identity = threading.Lock(), Singular(), object()
    copy = Replica(model).model
    assert (copy.lock, copy.singular, copy.identity) == (model.lock, model.singular, model.identity)


def test_a_copy_is_freed_at_once() -> None:
    gc.disable()
    try:
        seen = weakref.ref(Replica(build("cls")).model)
        assert seen() is None
    finally:
        gc.enable()
