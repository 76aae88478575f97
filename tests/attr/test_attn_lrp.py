"""AttnLRP against its rules one by one, on every family, and against its authors' package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import AttnLRP
from tests.attr import reference
from tests.families import build, images


@pytest.mark.parametrize("name", reference.TRACED)
@pytest.mark.one_in(2)
def test_agrees_with_the_rules_one_by_one(name: str) -> None:
    reference.agree_with_gradient_rules(AttnLRP, name, attn=True)


class _Passed(torch.autograd.Function):
    """In the peer's explicit mode relevance travels as the gradient: an activation passes it on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return relevance[0], None


def test_attn_lrp_agrees_with_the_authors_package() -> None:
    """lxt divides by stabilised denominators, this package uses the limit: close, not equal."""
    lf = pytest.importorskip("lxt.explicit.functional", reason="pip install 'captum-astro[peers]' to compare with it")
    model, image = build("cls"), images("cls", 1)
    model.requires_grad_(False)
    x0 = model._pos_embed(model.patch_embed(image)).detach().requires_grad_(True)
    x = x0

    def linear(layer: nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
        return lf.linear_epsilon(tokens, layer.weight, layer.bias, 1e-10)

    def norm(layer: nn.LayerNorm, tokens: torch.Tensor) -> torch.Tensor:
        return lf.layer_norm(tokens, layer.weight, layer.bias, layer.eps)

    for block in model.blocks:
        heads = block.attn.num_heads
        q, k, v = linear(block.attn.qkv, norm(block.norm1, x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = lf.matmul(q, k.transpose(-2, -1), epsilon=1e-12)
        attention = lf.softmax(scores, -1, temperature=1 / block.attn.scale)
        mixed = lf.matmul(attention, v, epsilon=1e-12).transpose(1, 2).flatten(2)
        x = lf.add2(x, linear(block.attn.proj, mixed), epsilon=1e-12)
        hidden = linear(block.mlp.fc1, norm(block.norm2, x))
        x = lf.add2(x, linear(block.mlp.fc2, _Passed.apply(hidden, F.gelu(hidden).detach())), epsilon=1e-12)
    score = linear(model.head, norm(model.norm, x)[:, 0])[0, reference.TARGET]
    (relevance,) = torch.autograd.grad(score, x0, score.detach())
    got = AttnLRP(model).attribute(image, target=reference.TARGET, attribute_to="tokens")[0]
    expected = relevance.sum(-1)[0]
    assert (got - expected).abs().max() <= 1e-3 * expected.abs().max()
