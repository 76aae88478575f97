from __future__ import annotations

import warnings
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import TokenGradCAM, TokenGradCAMPlusPlus, UnsupportedModelError
from captum_astro.attr import _layer
from captum_astro.attr._channels import ChannelMaps, channel_maps
from captum_astro.attr._layer import find_tap
from captum_astro.capture.call import Call
from captum_astro.capture.target import Target
from captum_astro.functional.places import Places
from captum_astro.layouts.steps import Tap
from tests.families import FAMILIES, build, images


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_layer_has_a_gradient(name: str) -> None:
    maps = TokenGradCAM(build(name)).attribute(images(name), target=1, relu_attributions=False)
    assert (maps.flatten(1).abs().amax(1) > 0).all()


def test_layers_by_module_or_path() -> None:
    model, x = build("cls"), images("cls")
    named = TokenGradCAM(model, "blocks.1.norm2").attribute(x, target=1)
    torch.testing.assert_close(TokenGradCAM(model, model.blocks[1].norm2).attribute(x, target=1), named)
    assert not torch.allclose(TokenGradCAM(model).attribute(x, target=1), named)
    with pytest.raises(ValueError, match=r"zero.*A layer that works is 'blocks\.2\.norm1'"):
        TokenGradCAM(model, "blocks.2").attribute(x, target=1)
    with pytest.raises(ValueError, match=r"has no layer 'blocks\.9'"):
        TokenGradCAM(model, "blocks.9")
    with pytest.raises(ValueError, match="not one of VisionTransformer's"):
        TokenGradCAM(model, torch.nn.Linear(1, 1))
    with pytest.raises(UnsupportedModelError, match="no tokens and no feature map"):
        TokenGradCAM(model, "head").attribute(x, target=1)


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("resnet18", None, (2, 2)),
        ("resnet18", "layer3", (4, 4)),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.1.norm1", (7, 7)),
        ("swin_tiny_patch4_window7_224", None, (7, 7)),
        ("convnext_atto", None, (2, 2)),
        ("convnext_atto", "stages.1.blocks.0.mlp.fc1", (8, 8)),
        ("swin_tiny_patch4_window7_224", "patch_embed.proj", (56, 56)),
        ("resnet18", "layer4.1.bn2", (2, 2)),
    ],
)
def test_hierarchical_and_convolutional_models(name: str, layer: str | None, grid: tuple[int, int]) -> None:
    model = timm.create_model(name, num_classes=7).eval()
    side = 224 if name.startswith("swin") else 64
    x = torch.randn(2, 3, side, side)
    for method in (TokenGradCAM, TokenGradCAMPlusPlus):
        maps = method(model, layer).attribute(x, target=1, attribute_to="grid", relu_attributions=False)
        assert maps.shape == (2, 1, *grid)
        assert method(model, layer).attribute(x, target=1).shape == x.shape


@pytest.mark.parametrize(
    ("name", "path", "at"),
    [
        ("cls", "blocks.2.norm1", "output"),
        ("post_norm", "blocks.2.attn", "input"),
        ("parallel_scaling", "blocks.2.in_norm", "output"),
    ],
)
def test_the_default_layer(name: str, path: str, at: str) -> None:
    model = build(name)
    layout, tap = find_tap(model, None)
    assert layout is not None
    assert tap is not None
    assert layout.model is model
    assert tap.module is model.get_submodule(path)
    assert tap.at == at
    resnet = timm.create_model("resnet18", num_classes=2)
    layout, tap = find_tap(nn.Sequential(nn.Identity(), resnet), None)
    assert layout is None
    assert tap is not None
    assert tap.module is resnet.layer4


def _maps(model: nn.Module, x: torch.Tensor, layer: str | None = None) -> ChannelMaps:
    layout, tap = find_tap(model, layer)
    assert tap is not None
    return channel_maps(Call(model, x, Target(1), layout=layout), tap)


@pytest.mark.parametrize("name", ["cls", "registers", "rectangular"])
def test_channel_maps_are_the_activation_and_its_gradient(name: str) -> None:
    model, x = build(name), images(name)
    kept: list[torch.Tensor] = []
    handle = model.blocks[2].norm1.register_forward_hook(lambda m, a, o: kept.append(o))
    output = model(x)
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), kept)
    handle.remove()
    found, prefix = _maps(model, x), model.num_prefix_tokens
    torch.testing.assert_close(found.activation, kept[0][:, prefix:].detach())
    torch.testing.assert_close(found.gradient, gradient[:, prefix:])
    torch.testing.assert_close(found.output, output.detach())
    assert found.places.prefix == prefix
    assert found.image_size == found.extent == tuple(x.shape[-2:])
    assert found.places.grid == (x.shape[2] // 8, x.shape[3] // 8)


class Permuted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


def test_feature_maps_with_channels_first_and_last() -> None:
    conv, head = nn.Conv2d(3, 5, 3, 2, 1), nn.Sequential(nn.Flatten(), nn.Linear(5 * 4 * 6, 3))
    norm = nn.LayerNorm(5)
    x = torch.randn(2, 3, 8, 12)
    last = _maps(nn.Sequential(conv, Permuted(), norm, head), x, "2")
    first = _maps(nn.Sequential(conv, head), x, "0")
    assert first.places.grid == last.places.grid == (4, 6)
    assert first.places.prefix is last.places.prefix is None
    plain = conv(x).detach()
    for b in range(2):
        for p in range(24):
            pixel = plain[b, :, p // 6, p % 6]
            torch.testing.assert_close(first.activation[b, p], pixel)
            torch.testing.assert_close(last.activation[b, p], norm(pixel).detach())
    torch.testing.assert_close(first.gradient[0].T.flatten(), head[1].weight[1].detach())
    torch.testing.assert_close(last.gradient[0].flatten(), head[1].weight[1].detach())


def _shaped(prefix: int | None) -> ChannelMaps:
    empty = torch.empty(0)
    return ChannelMaps(empty, empty, empty, Places(2, (2, 3), prefix), Tap(nn.Identity()), (7, 11), (8, 12))


def test_forms() -> None:
    cam, x = torch.rand(2, 6, dtype=torch.float64), torch.zeros(2, 3, 7, 11)
    maps = _shaped(2)
    tokens = maps.shaped(cam, x, "tokens")
    assert tokens.shape == (2, 8)
    assert tokens.dtype == x.dtype
    assert (tokens[:, :2] == 0).all()
    grid = maps.shaped(cam, x, "grid")
    assert grid.shape == (2, 1, 2, 3)
    assert torch.equal(grid.flatten(1), tokens[:, 2:])
    pixels = maps.shaped(cam, x, "pixels")  # the grid covers more than the image
    torch.testing.assert_close(pixels, F.interpolate(grid, size=(8, 12), mode="bilinear")[:, :, :7, :11])
    torch.testing.assert_close(maps.shaped(cam, x, "input").sum(1, keepdim=True), pixels)
    assert torch.equal(_shaped(None).shaped(cam, x, "grid"), grid)
    with pytest.raises(ValueError, match="This layer has no tokens: use attribute_to='grid'"):
        _shaped(None).shaped(cam, x, "tokens")


class Tokens(nn.Module):
    """A model without a layout: patches of 2 x 2 pixels as tokens in some order, after prefix tokens."""

    def __init__(self, order: list[int] | None = None, prefix: int = 0) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv2d(3, 5, 2, 2), nn.LayerNorm(5), nn.Linear(5, 2)
        self.prefix, self.order = nn.Parameter(torch.randn(1, prefix, 5)), order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        if self.order is not None:
            patches = patches[:, self.order]
        return self.head(self.norm(torch.cat([self.prefix.expand(len(x), -1, -1), patches], 1))).mean(1)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("size", [(4, 12), (12, 4), (2, 8), (8, 2), (8, 8)])
def test_tokens_without_a_layout(size: tuple[int, int], prefix: int) -> None:
    model, x = Tokens(prefix=prefix), torch.rand(2, 3, *size)
    places = _maps(model, x, "norm").places
    assert places == Places(2, (size[0] // 2, size[1] // 2), prefix)
    method = TokenGradCAM(model, "norm")
    tokens = method.attribute(x, target=1, attribute_to="tokens", relu_attributions=False)
    grid = method.attribute(x, target=1, attribute_to="grid", relu_attributions=False)
    assert torch.equal(tokens[:, prefix:], grid.flatten(1))


@pytest.mark.parametrize(
    "order",
    [
        [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15],  # windows of 2 x 2
        [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15],  # column by column
        list(range(15, -1, -1)),
        [5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 1, 2, 3, 0],  # rolled
    ],
)
def test_tokens_out_of_order_are_refused(order: list[int]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"LayerNorm returns \(1, 16, 5\), in which no rows and columns"):
        TokenGradCAM(Tokens(order), "norm").attribute(torch.rand(1, 3, 8, 8), target=1)


def test_bad_models() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 4, 3))
    with pytest.raises(UnsupportedModelError, match="has no layout and no timm feature_info: pass the layer"):
        find_tap(model, None)
    with pytest.raises(UnsupportedModelError, match=r"Flatten returns \(1, 20\): no tokens and no feature map"):
        _maps(model, torch.rand(1, 3, 4, 4), "1")


def test_certain_model_without_a_layout() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([0.0, 400.0]))
    with pytest.raises(ValueError, match=r"nothing reads them after it\. With output='probability'"):
        TokenGradCAM(model, "0").attribute(torch.rand(1, 3, 8, 8), target=1, output="probability")


def test_warns_of_a_map_that_is_zero_everywhere() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].bias.fill_(9)
        model[4].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    x, cam = torch.rand(1, 3, 8, 8), TokenGradCAM(model, "1")
    with pytest.warns(UserWarning, match="TokenGradCAM gives a map that is zero everywhere: no position has a pos"):
        assert not cam.attribute(x, target=1).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cam.attribute(x, target=0).all()
        assert (cam.attribute(x, target=1, relu_attributions=False) < 0).all()


def test_a_probe_is_made_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    made = _layer.probe

    def counted(call: Any, *given: Any) -> None:
        sizes.append(tuple(call.inputs.shape[-2:]))
        made(call, *given)

    monkeypatch.setattr(_layer, "probe", counted)
    model = timm.create_model("resnet18", num_classes=4).eval()
    cam = TokenGradCAM(model)
    for side in (64, 96, 64):
        x = torch.rand(3, 3, side, side)
        first = cam.attribute(x, target=1, attribute_to="grid", internal_batch_size=1)
        torch.testing.assert_close(TokenGradCAM(model).attribute(x, target=1, attribute_to="grid"), first)
        assert first.shape == (3, 1, side // 32, side // 32)
    assert sizes == [(64, 64), (64, 64), (96, 96), (96, 96), (64, 64)]  # each second one is of a fresh TokenGradCAM
    cam.layer = model.layer3
    assert cam.attribute(x, target=1, attribute_to="grid").shape == (3, 1, 4, 4)
