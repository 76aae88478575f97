"""Grad-CAM++ under astrocytes, from its equation with loops on the modulated model."""

from __future__ import annotations

import pytest
import torch

from captum_astro import ViTA, ViTAGradCAMPlusPlus
from tests.families import build, images

PUBLISHED = {"k": 6, "tau": 3, "phi": -0.5, "alpha": 1.5, "beta": 0.05}


@pytest.mark.parametrize("relu", [True, False])
def test_the_equation_with_loops(relu: bool) -> None:
    """Eq. 19 of arXiv 1710.11063, at the last block's first norm."""
    model, x = build("cls"), images("cls")
    target = 1
    with ViTA(model, layer="blocks.0.attn.proj", **PUBLISHED) as modulated:
        seen: list[torch.Tensor] = []
        handle = model.blocks[-1].norm1.register_forward_hook(lambda _, given, output: seen.append(output))
        scores = modulated(x.clone().requires_grad_(True))
        handle.remove()
        (slopes,) = torch.autograd.grad(scores[:, target].sum(), seen[-1])
    activation, gradient = seen[-1].detach()[:, 1:], slopes[:, 1:]
    batch, positions, channels = activation.shape
    expected = torch.zeros(batch, positions, dtype=torch.float64)
    for image in range(batch):
        for channel in range(channels):
            total, weight = float(activation[image, :, channel].sum()), 0.0
            for place in range(positions):
                g = float(gradient[image, place, channel])
                alpha = g**2 / (2 * g**2 + total * g**3 + 1e-6) if g else 0.0
                weight += alpha * max(g, 0.0)
            expected[image] += weight * activation[image, :, channel]
    expected = expected.clamp(min=0) if relu else expected
    explain = ViTAGradCAMPlusPlus(model, modulated_layer="blocks.0.attn.proj", **PUBLISHED)
    found = explain.attribute(x, target=target, relu_attributions=relu, attribute_to="grid")
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-9, atol=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    model, x = build("cls"), images("cls")
    options = {"target": 1, "relu_attributions": False, "attribute_to": "grid"}
    exact = ViTAGradCAMPlusPlus(model, **PUBLISHED).attribute(x, **options)
    half = ViTAGradCAMPlusPlus(model.bfloat16(), **PUBLISHED).attribute(x.bfloat16(), **options)
    assert half.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(half.flatten().double(), exact.flatten(), 0) > 0.9
