from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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


def _enclosing(wrapper: Reads) -> Any:
    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        wrapper.tokens = output

    return hook


@pytest.mark.parametrize(
    "store", [lambda w: w.put, lambda w: partial(Reads.put, w), _enclosing], ids=["method", "partial", "closure"]
)
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


def test_what_leads_to_no_module_is_shared() -> None:
    seen: list[int] = []
    model = nn.Linear(2, 2)
    model.names = ["a"]
    model.register_forward_hook(lambda *_: seen.append(1))
    copy = Replica(model).model
    copy(torch.zeros(1, 2))
    assert seen == [1]
    assert copy.names is model.names
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
