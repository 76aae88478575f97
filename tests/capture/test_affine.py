from __future__ import annotations

import pytest
import torch
from timm.layers import RmsNorm
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.affine import compose, inverse_deviation
from captum_astro.layouts.steps import Linear, Norm, Scale

H, V, D, B, N = 3, 4, 10, 2, 5


@pytest.mark.parametrize("norm", [nn.LayerNorm, RmsNorm, nn.RMSNorm])
def test_steps_multiply_out(norm: type[nn.Module]) -> None:
    first, last = norm(H * V).double(), norm(D).double()
    for module in (first, last):
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    linear, gamma = nn.Linear(H * V, D).double(), torch.randn(D, dtype=torch.float64)
    heads = torch.randn(B, H, N, V, dtype=torch.float64)
    x = heads.transpose(1, 2).flatten(2)
    hidden = linear(first(x)) * gamma
    steps = (Norm(first), Linear(linear.weight, linear.bias), Scale(gamma), Norm(last), Scale(0.5))
    out = compose(steps, [inverse_deviation(first, x), inverse_deviation(last, hidden)], heads)
    got = torch.einsum("bni,id->bnd", x, out.matrix) * out.query_scale[:, 0, :, None] + out.constant
    torch.testing.assert_close(got, last(hidden) * 0.5, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.LayerNorm, RmsNorm])
def test_per_head_norm(norm: type[nn.Module]) -> None:
    module, heads = norm(V).double(), torch.randn(B, H, N, V, dtype=torch.float64)
    nn.init.normal_(module.weight)
    out = compose((Norm(module, per_head=True), Scale(0.3)), [inverse_deviation(module, heads)], heads)
    mixed = (heads * out.query_scale[..., None]).transpose(1, 2).flatten(2) @ out.matrix
    torch.testing.assert_close(mixed, 0.3 * module(heads).transpose(1, 2).flatten(2), rtol=1e-10, atol=1e-12)


def test_other_norms_are_rejected() -> None:
    with pytest.raises(UnsupportedModelError, match="BatchNorm1d is used between"):
        inverse_deviation(nn.BatchNorm1d(3), torch.zeros(1, 3))
