"""Each gradient rule leaves values unchanged, and modifies gradients according to its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from captum_astro.functional import gradient_rules as rules


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("centred", [True, False])
def test_gradient_rules_keep_the_values(centred: bool) -> None:
    x = _normal(2, 3, 6).requires_grad_()
    w, b = _normal(6), _normal(6)
    if centred:
        expected, power = F.layer_norm(x, (6,), w, b, 1e-6), x.detach().var(-1, unbiased=False)
    else:
        expected, power = F.rms_norm(x, (6,), w, 1e-6) + b, x.detach().pow(2).mean(-1)
    y = rules.frozen_norm(x, (power + 1e-6).rsqrt(), centred, w, b)
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
