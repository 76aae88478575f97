"""Each gradient rule leaves values unchanged, and modifies gradients according to its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro.functional import gradient_rules as rules


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _written_out(x: torch.Tensor, centred: bool, eps: float, w: torch.Tensor | None, b: torch.Tensor | None) -> Any:
    """The norm, one operation at a time, its deviation a constant."""
    x = x - x.mean(-1, keepdim=True) if centred else x
    y = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt().detach()
    y = y if w is None else y * w
    return y if b is None else y + b


@pytest.mark.parametrize("learned", ["no weight", "weight", "weight and bias", "weight with gradient"])
@pytest.mark.parametrize("centred", [True, False])
def test_the_norm_is_that_of_its_operations(centred: bool, learned: str) -> None:
    x = (_normal(3, 5, 8) + 1).requires_grad_()
    w = None if learned == "no weight" else _normal(8).requires_grad_(learned == "weight with gradient")
    b = _normal(8) if learned == "weight and bias" else None
    asked, slope = [x, w] if w is not None and w.requires_grad else [x], _normal(3, 5, 8)
    results = []
    for norm in (rules.frozen_norm, _written_out):
        y = norm(x, centred, 1e-3, w, b)
        results.append([y, *torch.autograd.grad(y, asked, slope)])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_the_norm_of_a_batch_is_that_of_its_samples(centred: bool) -> None:
    x, w, slope = _normal(3, 5, 8).requires_grad_(), _normal(8), _normal(3, 5, 8)
    (whole,) = torch.autograd.grad(rules.frozen_norm(x, centred, 1e-3, w, w), x, slope)
    for i in range(3):
        part = x[i : i + 1]
        (own,) = torch.autograd.grad(rules.frozen_norm(part, centred, 1e-3, w, w), part, slope[i : i + 1])
        torch.testing.assert_close(own[0], whole[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("centred", [True, False])
def test_the_norm_accumulates_half_precision_in_float32(centred: bool, dtype: torch.dtype) -> None:
    x, w = _normal(2, 64).to(dtype).requires_grad_(), _normal(64).to(dtype)
    wide = x.detach().float().requires_grad_()
    got, expected = rules.frozen_norm(x, centred, 1e-3, w, w), _written_out(wide, centred, 1e-3, w.float(), w.float())
    pairs = [(got, expected), (torch.autograd.grad(got.sum(), x)[0], torch.autograd.grad(expected.sum(), wide)[0])]
    for half, single in pairs:
        assert half.dtype == dtype
        torch.testing.assert_close(half, single.to(dtype))


def test_the_slope_at_zero_is_zero() -> None:
    x = torch.tensor([0.0, -0.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = rules.identity_activation(x, torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [0, 0, 3]
    assert gradient.tolist() == [0, 0, 1.5]


@pytest.mark.parametrize("centred", [True, False])
def test_gradient_rules_keep_the_values(centred: bool) -> None:
    x = _normal(2, 3, 6).requires_grad_()
    w, b = _normal(6), _normal(6)
    expected = F.layer_norm(x, (6,), w, b, 1e-6) if centred else F.rms_norm(x, (6,), w, 1e-6) + b
    y = rules.frozen_norm(x, centred, 1e-6, w, b)
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    # linear once the deviation is given: x . dy/dx is y without its bias
    torch.testing.assert_close((gradient * x).sum(-1), (y - b).sum(-1))
    y = rules.identity_activation(x, F.gelu(x))
    torch.testing.assert_close(y, F.gelu(x))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, F.gelu(x))
    q, k, v = (_normal(1, 2, 5, 4).requires_grad_() for _ in range(3))
    plain = F.scaled_dot_product_attention(q, k, v)
    slopes = torch.autograd.grad(plain.tanh().sum(), [q, k, v])
    shared = rules.attention_with_shared_gradients(q, k, v)
    torch.testing.assert_close(shared, plain)
    for got, slope, factor in zip(torch.autograd.grad(shared.tanh().sum(), [q, k, v]), slopes, (4, 4, 2), strict=True):
        torch.testing.assert_close(got * factor, slope)
    constant = rules.attention_with_constant_weights(q, k, v)
    torch.testing.assert_close(torch.autograd.grad(constant.tanh().sum(), v)[0], slopes[2])
    assert torch.autograd.grad(rules.attention_with_constant_weights(q, k, v).sum(), q, allow_unused=True)[0] is None


@pytest.mark.parametrize("keyword", [True, False])
def test_a_bias_that_depends_on_the_image_is_a_part_of_the_scores(keyword: bool) -> None:
    """As in SAM: constant like the weights, or, under AttnLRP, as where the model writes its attention out."""
    given = [torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_() for _ in range(3)]
    bias, g = torch.randn(2, 3, 4, 4, dtype=torch.float64).requires_grad_(), torch.randn(2, 3, 4, 5).double()

    def called(function: Any) -> Any:
        return function(*given, attn_mask=bias, scale=0.3) if keyword else function(*given, bias, scale=0.3)

    attention = (given[0] @ given[1].transpose(-2, -1) * 0.3 + bias).softmax(-1).detach()
    found = torch.autograd.grad(called(rules.attention_with_constant_weights), [*given, bias], g, allow_unused=True)
    assert [x is None for x in found] == [True, True, False, True]
    torch.testing.assert_close(found[2], attention.transpose(-2, -1) @ g)

    query, key, value, scores_bias = (x.detach().requires_grad_() for x in (*given, bias))
    half = rules.ScaledGradient.apply
    scores = half(query, 0.5) @ half(key, 0.5).transpose(-2, -1) * 0.3 + scores_bias
    output = half(scores.softmax(-1), 0.5) @ half(value, 0.5)
    expected = torch.autograd.grad(output, [query, key, value, scores_bias], g)
    found = torch.autograd.grad(called(rules.attention_with_shared_gradients), [*given, bias], g)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
