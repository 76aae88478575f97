from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro import TokenGradCAM, TokenGradCAMPlusPlus, ViTA, ViTAGradCAM, ViTAGradCAMPlusPlus
from tests.families import build, images

PAIRS = [(ViTAGradCAM, TokenGradCAM), (ViTAGradCAMPlusPlus, TokenGradCAMPlusPlus)]
OPTIONS: dict[str, Any] = {"k": 4, "tau": 2, "phi": 0.0, "alpha": 2.0, "beta": 0.5}


@pytest.mark.parametrize(("method", "plain"), PAIRS)
@pytest.mark.parametrize("layer", ["blocks.0.attn.proj", "blocks.0.mlp.fc1"])
def test_it_is_grad_cam_of_the_modulated_model(method: Any, plain: Any, layer: str) -> None:
    model, x = build("cls"), images("cls")
    given = {"target": 1, "relu_attributions": False}
    found = method(model, modulated_layer=layer, **OPTIONS).attribute(x, **given)
    torch.testing.assert_close(found, plain(ViTA(model, layer=layer, **OPTIONS)).attribute(x, **given))
    assert not torch.allclose(found, plain(model).attribute(x, **given))


@pytest.mark.parametrize(("method", "plain"), PAIRS)
def test_the_class_is_the_unmodulated_models(method: Any, plain: Any) -> None:
    model, x = build("cls"), images("cls")
    explain = method(model, **OPTIONS)
    classes = model(x).argmax(1)
    found = explain.attribute(x, relu_attributions=False)
    torch.testing.assert_close(found, explain.attribute(x, target=classes, relu_attributions=False))
