from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.activation import activation_and_gradient
from captum_astro.capture.call import Call
from captum_astro.capture.target import Target
from captum_astro.layouts import layout_for
from captum_astro.layouts.steps import Tap
from tests.families import build, images


def _call(model: nn.Module, x: torch.Tensor) -> Call:
    return Call(model, x, Target(1, "logit"), (), layout_for(model))


def test_the_value_and_its_gradient_are_those_of_autograd() -> None:
    model, x = build("cls"), images("cls")
    kept: list[torch.Tensor] = []
    handle = model.blocks[0].register_forward_hook(lambda module, args, output: kept.append(output))
    (expected,) = torch.autograd.grad(model(x)[:, 1].sum(), kept)
    handle.remove()
    found = activation_and_gradient(_call(model, x), Tap(model.blocks[0], "output"))
    torch.testing.assert_close(found.value, kept[0].detach())
    torch.testing.assert_close(found.gradient, expected)
    torch.testing.assert_close(found.output, model(x).detach())
    assert found.image_size == tuple(x.shape[2:])


def test_a_module_that_does_not_run_is_refused() -> None:
    model, x = build("cls"), images("cls")
    with pytest.raises(UnsupportedModelError, match="Linear ran 0 times in one pass, not once"):
        activation_and_gradient(_call(model, x), Tap(nn.Linear(2, 2), "output"))
