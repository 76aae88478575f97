"""Grad-CAM of many families, against maps computed on axes that are written down here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision
from torch import nn

from captum_astro import TokenGradCAM, UnsupportedModelError


class Family(NamedTuple):
    layer: str
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    options: Mapping[str, Any] = MappingProxyType({})
    size: int = 224


DEFAULTS = {
    "resnet10t": Family("layer4", 1, (2, 2), size=64),
    "efficientnet_b0_gn": Family("blocks.6", 1, (2, 2), size=64),
    "samvit_base_patch16_224": Family(
        "blocks.1.norm1", 3, (4, 4), options={"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 64}, size=64
    ),
    "volo_d1_224": Family("post_network.1.norm1", 2, (14, 14), 1),
    "tiny_vit_5m_224": Family("stages.3.blocks.0", 3, (7, 7)),
    "gcvit_xxtiny": Family("stages.3.blocks.1.norm1", 3, (7, 7)),
    "convformer_s18": Family("stages.3", 1, (2, 2), size=64),
    "xcit_nano_12_p16_224": Family("cls_attn_blocks.1.norm1", 2, (4, 4), 1, {"depth": 2}, 64),
    "cait_xxs24_224": Family("blocks_token_only.1.norm1", 2, (4, 4), 1, options={"depth": 2, "img_size": 64}, size=64),
    "convit_tiny": Family("blocks.1.norm1", 2, (4, 4), 1, {"depth": 2, "local_up_to_layer": 1, "img_size": 64}, 64),
    "tnt_s_patch16_224": Family("blocks.1.norm_out", 2, (4, 4), 1, {"depth": 2, "img_size": 64}, 64),
    "pit_ti_distilled_224": Family("transformers.2.blocks.0.norm1", 2, (7, 7), 2, {"depth": (1, 1, 1)}),
    "mvitv2_tiny": Family("stages.3.blocks.1.norm1", 2, (7, 7)),
    "twins_svt_small": Family("blocks.3.0.norm1", 2, (7, 7), options={"depths": (1, 1, 1, 1)}),
    "coat_lite_tiny": Family("serial_blocks4.0.norm1", 2, (7, 7), 1, {"serial_depths": (1, 1, 1, 1)}),
    "crossvit_9_240": Family("blocks.2.fusion.1.norm1", 2, (20, 20), 1, size=240),
    "hrnet_w18_small": Family("final_layer", 1, (2, 2), size=64),
    "efficientvim_m1": Family("norm.3", 1, (4, 4)),
    "levit_128s": Family("stages.2.blocks.2", 2, (4, 4)),
    "hiera_tiny_224": Family("blocks.11", 2, (7, 7)),
    "nest_tiny": Family("levels.2", 1, (14, 14)),
}


def _drawn(model: nn.Module) -> nn.Module:
    """Weights with which no head, no scale and no gate is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    return model.eval()


def _made(name: str) -> tuple[nn.Module, torch.Tensor]:
    family, generator = DEFAULTS[name], torch.Generator().manual_seed(1)
    model = timm.create_model(name, num_classes=3, **family.options)
    return _drawn(model), torch.randn(2, 3, family.size, family.size, generator=generator)


def _expected(model: nn.Module, x: torch.Tensor, layer: str, channels: int, prefix: int) -> torch.Tensor:
    """``sum_c w_c A_c`` of every place, in the order of the axes."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, y: kept.append(y))
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), kept)
    handle.remove()
    a, g = (y.detach().movedim(channels, -1).flatten(1, -2)[:, prefix:] for y in (kept[0], gradient))
    return (a * g.mean(1, keepdim=True)).sum(-1)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_map_has_the_right_values_at_the_right_places(name: str) -> None:
    (model, x), family = _made(name), DEFAULTS[name]
    got = TokenGradCAM(model).attribute(x, target=1, attribute_to="grid", relu_attributions=False)
    expected = _expected(model, x, family.layer, family.channels, family.prefix)
    assert got.shape == (2, 1, *family.grid)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "layer", "channels", "grid"),
    [
        ("gcvit_xxtiny", "stages.3.blocks.1", 3, (7, 7)),
        ("gcvit_xxtiny", "stages.2.blocks.1.mlp.fc1", 3, (14, 14)),
        ("tiny_vit_5m_224", "stages.2.blocks.0", 3, (14, 14)),
        ("convformer_s18", "stages.2.blocks.0.norm1", 1, (4, 4)),
        ("volo_d1_224", "network.0.0.norm1", 3, (28, 28)),
        ("torchvision", "features.7.1.norm1", 3, (2, 2)),
    ],
)
def test_chosen_layers(name: str, layer: str, channels: int, grid: tuple[int, int]) -> None:
    if name == "torchvision":
        model, x = _drawn(torchvision.models.swin_t(num_classes=3)), torch.randn(2, 3, 64, 64)
    else:
        model, x = _made(name)
    got = TokenGradCAM(model, layer).attribute(x, target=1, attribute_to="grid", relu_attributions=False)
    expected = _expected(model, x, layer, channels, 0)
    assert got.shape == (2, 1, *grid)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "layer", "options", "reason"),
    [
        ("swin_tiny_patch4_window7_224", "layers.2.blocks.1.attn.qkv", {}, "returns 4 maps for 1 images"),
        ("vit_tiny_patch16_224", "blocks.1.attn.q_norm", {"depth": 2}, r"\(1, 3, 197, 64\), in which no rows"),
        ("swinv2_tiny_window8_256", "layers.3.blocks.1.attn.softmax", {}, r"\(1, 24, 64, 64\), in which no rows"),
        ("hiera_tiny_224", "blocks.2", {}, r"\(1, 784, 192\), in which no rows"),  # in mask units
    ],
)
def test_refusals_name_a_layer_that_works(name: str, layer: str, options: dict[str, Any], reason: str) -> None:
    model = _drawn(timm.create_model(name, num_classes=3, **options))
    side = model.default_cfg["input_size"][-1]
    x = torch.randn(1, 3, side, side)
    with pytest.raises(UnsupportedModelError, match=rf"{reason}.*A layer that works is") as refused:
        TokenGradCAM(model, layer).attribute(x, target=1)
    named = str(refused.value).split("'")[-2]
    assert TokenGradCAM(model, named).attribute(x, target=1).shape == x.shape
