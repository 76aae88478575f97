"""What arrives at the pixels and at the constants is the explained output, wherever every rule is exact."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers.activations import GELU, GELUTanh
from torch import nn

from captum_astro import LRP, AttnLRP, ConservativeLRP
from tests.families import build, images

# without a softmax; among them gates (squeeze and excite), batch and group norms, a response norm, and plain layers
EXACT = ("test_efficientnet", "test_byobnet", "test_resnet", "test_nfnet", "test_convnext", "test_mambaout")


def _model(name: str) -> nn.Module:
    """Nothing in it is zero."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
    return model


def _homogeneous(model: nn.Module) -> nn.Module:
    """Without biases, and with ReLU for every activation."""
    for module in list(model.modules()):
        for name, part in list(module._modules.items()):
            if isinstance(part, nn.GELU | nn.SiLU | GELUTanh | GELU):
                setattr(module, name, nn.ReLU())
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return model


@pytest.mark.parametrize("name", EXACT)
def test_attn_lrp_gives_all_to_pixels_and_constants(name: str) -> None:
    model = _model(name)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    parts = AttnLRP(model).conservation(x, target=1)
    assert parts.output == pytest.approx(model(x)[0, 1].item(), rel=1e-10)
    assert parts.pixels == pytest.approx(AttnLRP(model).attribute(x, target=1).sum().item() / parts.output, rel=1e-10)
    assert abs(parts.constants) > 1e-3
    assert parts.rest == pytest.approx(0, abs=1e-9 * max(1, abs(parts.pixels)))


@pytest.mark.parametrize("method", [AttnLRP, ConservativeLRP])
@pytest.mark.parametrize("name", EXACT)
def test_without_biases_all_goes_to_the_pixels(method: Any, name: str) -> None:
    model = _homogeneous(_model(name))
    parts = method(model).conservation(torch.randn(1, 3, 64, 64, dtype=torch.float64), target=1)
    assert parts.pixels == pytest.approx(1, rel=1e-9)
    assert parts.constants == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["cls", "registers", "average", "eva02", "beit"])
def test_conservative_lrp_of_transformers(name: str) -> None:
    """Position embeddings, class tokens and biases get what the pixels do not."""
    model = build(name)
    for module in list(model.modules()):
        for part, value in list(module._modules.items()):
            if isinstance(value, nn.GELU | nn.SiLU):
                setattr(module, part, nn.ReLU())
    parts = ConservativeLRP(model).conservation(images(name, 1), target=3)
    assert abs(parts.constants) > 1e-3
    assert parts.rest == pytest.approx(0, abs=1e-9 * max(1, abs(parts.pixels)))


@pytest.mark.parametrize("name", ["cls", "registers"])
def test_lrp(name: str) -> None:
    """It starts with 1; what is not the pixels' belongs to position embeddings and prefix tokens."""
    parts = LRP(build(name)).conservation(images(name, 1), target=3)
    assert parts.output == 1
    assert parts.rest == pytest.approx(0, abs=1e-8)
    assert abs(parts.constants) > 1e-3


def test_bad_input() -> None:
    model = _homogeneous(_model("test_resnet"))
    with pytest.raises(ValueError, match=r"for one image, not 2: pass inputs\[:1\]"):
        AttnLRP(model).conservation(torch.rand(2, 3, 32, 32, dtype=torch.float64), target=1)
    with pytest.raises(ValueError, match=r"output is zero.*choose another target"):
        AttnLRP(model).conservation(torch.zeros(1, 3, 32, 32, dtype=torch.float64), target=1)
