from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import (
    ViTA,
)
from captum_astro.astro import AstrocyticLinear, Modulation
from captum_astro.astro.astrocytic_linear import measured, modulate, watched_token
from tests.astro.making import MILD
from tests.families import build, images


@pytest.mark.parametrize("name", ["cls", "average", "registers", "eva02", "map_pooling", "post_norm", "differential"])
def test_output_equals_a_model_with_the_layer_replaced(name: str) -> None:
    model, x = build(name), images(name)
    expected = copy.deepcopy(model)
    attention = expected.blocks[0].attn
    attention.proj = AstrocyticLinear(attention.proj, Modulation(**MILD), "mean" if name == "average" else "cls")
    if name == "map_pooling":
        attention.proj.token = "mean"
    torch.testing.assert_close(ViTA(model, **MILD)(x), expected(x), rtol=1e-12, atol=1e-12)


def test_custom_layer_type() -> None:
    class Adapted(nn.Linear):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(tokens) + tokens.roll(1, -1)

    model, x = build("cls"), images("cls")
    attention = model.blocks[0].attn
    adapted = Adapted(24, 24).double()
    adapted.load_state_dict(attention.proj.state_dict())
    attention.proj = adapted
    expected = copy.deepcopy(model)
    expected.blocks[0].attn.proj = AstrocyticLinear(adapted, Modulation(**MILD))
    torch.testing.assert_close(ViTA(model, **MILD)(x), expected(x), rtol=1e-12, atol=1e-12)


RULE = Modulation(k=4, tau=2, phi=0.0, alpha=1.5, beta=0.3)  # three steps at which astrocytes act


def _layer_and_tokens() -> tuple[nn.Linear, torch.Tensor]:
    return nn.Linear(4, 6).double(), torch.randn(2, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize("token", ["cls", "mean"])
@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
def test_token_by_token(token: Any, rescale: Any) -> None:
    linear, x = _layer_and_tokens()
    found = AstrocyticLinear(linear, replace(RULE, rescale=rescale), token)(x)
    for b in range(2):
        watched = x[b, 0] if token == "cls" else sum(x[b, n] for n in range(5)) / 5
        factors = torch.tensor([1.5**3 if v > 0 else 0.3**3 for v in watched.tolist()], dtype=torch.float64)
        for n in range(5):
            plain, y = linear(x[b, n]), linear(x[b, n] * factors)
            if rescale == "length":
                y = y * plain.norm() / y.norm()
            elif rescale == "moments":
                y = (y - y.mean()) / y.std() * plain.std() + plain.mean()
            torch.testing.assert_close(found[b, n], y, rtol=1e-11, atol=1e-13)


def test_windows_are_grouped_by_image() -> None:
    linear, x = _layer_and_tokens()
    x = torch.cat([x, x.flip(0)], 1)  # ten tokens: two windows of five
    windows = x.reshape(4, 5, 4)
    found = modulate(windows, linear(windows), linear, RULE, "mean", images=2)
    assert found.shape == (4, 5, 6)
    torch.testing.assert_close(found.reshape(2, 10, 6), AstrocyticLinear(linear, RULE, "mean")(x))
    alone = modulate(windows, linear(windows), linear, RULE, "mean", images=4)
    assert not torch.allclose(found, alone)


def test_inactive_astrocytes_return_the_plain_output() -> None:
    linear, x = _layer_and_tokens()
    plain = linear(x)
    assert modulate(x, plain, linear, Modulation(k=2, tau=3), "cls", 2) is plain
    assert modulate(x, plain, linear, RULE, "cls", 2) is not plain


def test_the_layers_hooks_run_once() -> None:
    linear, x = _layer_and_tokens()
    seen: list[torch.Tensor] = []
    linear.register_forward_hook(lambda m, a, o: seen.append(a[0]))
    AstrocyticLinear(linear, RULE)(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], x)


def test_choice_of_the_monitored_token() -> None:
    x = torch.arange(12.0).reshape(1, 3, 4)
    assert watched_token(x, "cls").tolist() == [[0, 1, 2, 3]]
    assert watched_token(x, "mean").tolist() == [[4, 5, 6, 7]]
    linear, tokens = _layer_and_tokens()
    layer = AstrocyticLinear(linear, RULE)
    other = tokens.clone()
    other[:, 1:] += 1  # whatever the others show, the factors are the first token's
    torch.testing.assert_close(layer(other)[:, 0], layer(tokens)[:, 0])


@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
def test_measured_effect_reconstructs_the_output(rescale: Any) -> None:
    linear, x = _layer_and_tokens()
    rule = replace(RULE, rescale=rescale)
    factors, scale, shift = measured(x, linear, rule, "cls", len(x))
    assert (factors.shape, scale.shape) == ((2, 4), (2, 5))
    assert (shift is None) == (rescale != "moments")
    rebuilt = linear(x * factors[:, None]) * scale[..., None] + (0 if shift is None else shift[..., None])
    torch.testing.assert_close(rebuilt, AstrocyticLinear(linear, rule)(x), rtol=1e-12, atol=1e-13)
    factors, scale, shift = measured(x, linear, Modulation(k=0, rescale=rescale), "cls", len(x))
    assert (factors == 1).all()
    assert (scale == 1).all()
    assert shift is None


def test_weights_are_shared_and_the_rule_is_shown() -> None:
    linear, _ = _layer_and_tokens()
    layer = AstrocyticLinear(linear)
    assert layer.linear is linear
    assert layer.modulation == Modulation()
    assert [id(parameter) for parameter in layer.parameters()] == [id(linear.weight), id(linear.bias)]
    assert "tau=3" in repr(layer)
    assert "token='cls'" in repr(layer)
    assert "token='mean'" in repr(AstrocyticLinear(linear, token="mean"))
