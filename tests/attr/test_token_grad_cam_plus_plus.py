"""What Grad-CAM++ does differently from Grad-CAM; their common tests are in test_token_grad_cam.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from captum_astro import TokenGradCAMPlusPlus, ViTAGradCAMPlusPlus
from tests.families import build, images

GIVEN: dict[str, Any] = {"target": [1, 2, 3], "attribute_to": "grid", "relu_attributions": False}


@pytest.mark.parametrize("method", [TokenGradCAMPlusPlus, ViTAGradCAMPlusPlus])
def test_half_precision_does_not_reach_its_weights(method: Any) -> None:
    model, x = build("cls").float(), images("cls").float()
    expected = method(model).attribute(x, **GIVEN)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method(model).attribute(x, **GIVEN), expected)
    half = copy.deepcopy(model).bfloat16()
    wide = copy.deepcopy(half).float()
    found = method(half).attribute(x.bfloat16(), **GIVEN)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, method(wide).attribute(x.bfloat16().float(), **GIVEN).bfloat16())


@pytest.mark.parametrize("number", [0.0, 2.0])
def test_one_channel_by_hand(number: float) -> None:
    """``alpha = g^2 / (2 g^2 + (sum A) g^3 + 1e-6)``; the weight is the sum of alpha times relu(g)."""
    from captum_astro.functional.grad_cam import grad_cam_plus_plus

    activation = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    gradient = torch.tensor([[[number], [-1.0]]], dtype=torch.float64)
    alpha = 4 / (8 + 4 * 8 + 1e-6) if number else 0.0
    expected = alpha * number * activation[..., 0]
    torch.testing.assert_close(grad_cam_plus_plus(activation, gradient, False), expected, rtol=1e-12, atol=0)
