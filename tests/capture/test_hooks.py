"""Hooks that see one explanation's calls, and leave nothing behind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from captum_astro.capture.explaining import explaining
from captum_astro.capture.hooks import Hooks
from captum_astro.layouts.steps import Tap


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, factor: float, b: torch.Tensor) -> torch.Tensor:
        return a + factor * b


def _registered(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def test_tensors_are_seen_and_replaced_wherever_they_are_given() -> None:
    module, seen = Sum(), []
    one, two = torch.ones(2), torch.full((2,), 2.0)
    with Hooks() as hooks:
        hooks.before(module, seen.append)
        hooks.before(module, lambda x: x * 10, tensor=1)
        hooks.before(module, seen.append, tensor=2)  # there is no third
        hooks.after(module, lambda x: x + 0.5)
        assert torch.equal(module(one, 3.0, two), one + 3 * 10 * two + 0.5)
        assert torch.equal(module(one, 3.0, b=two), one + 3 * 10 * two + 0.5)
    assert len(seen) == 2
    assert all(x is one for x in seen)
    assert torch.equal(module(one, 3.0, two), one + 3 * two)
    assert _registered(module) == 0


def test_a_tap_is_at_the_input_or_the_output() -> None:
    module, seen = nn.ReLU(), []
    x = torch.tensor([-1.0, 2.0])
    with Hooks() as hooks:
        hooks.tap(Tap(module), lambda x: seen.append(x.clone()))
        hooks.tap(Tap(module, at="output"), lambda x: seen.append(x.clone()))
        module(x)
    assert [x.tolist() for x in seen] == [[-1, 2], [0, 2]]


def test_what_is_no_tensor_is_left_alone() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    module = Pair()
    with Hooks() as hooks:
        hooks.after(module, lambda x: x * 0)
        assert torch.equal(module(torch.ones(1))[1], torch.ones(1))


def test_finally_is_called_after_an_error() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    module, left = Fails(), []
    with Hooks() as hooks:
        hooks.finally_(module, lambda: left.append(1))
        with pytest.raises(RuntimeError, match="broken"):
            module(torch.ones(1))
    assert left == [1]
    assert _registered(module) == 0


def test_calls_of_others_are_not_seen() -> None:
    module, seen = nn.Identity(), []
    with explaining(module), Hooks() as hooks:
        hooks.before(module, seen.append)
        hooks.after(module, seen.append)
        hooks.finally_(module, lambda: seen.append(torch.ones(1)))
        other = threading.Thread(target=module, args=(torch.ones(1),))
        other.start()
        other.join()
        assert not seen
        module(torch.ones(1))
        assert len(seen) == 3
