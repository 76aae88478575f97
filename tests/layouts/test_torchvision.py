"""torchvision's models: the same maps as timm's with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import swin_transformer as swin
from torchvision.models.maxvit import MaxVit
from torchvision.models.vision_transformer import VisionTransformer

from captum_astro import VTranM, check
from captum_astro.layouts.base import _REGISTRY, layout_for
from captum_astro.layouts.blocks import _BLOCKS
from tests.families import build, images
from tests.libraries import assert_same_maps, every_method, loaded, renamed, skip_undefined, without_relu

_swin = partial(swin.SwinTransformer, [4, 4], 12, [2, 2], [2, 3], [4, 4], 2.0, num_classes=5)
_swin_v2 = partial(_swin, block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2)


def _vit() -> nn.Module:
    return VisionTransformer(32, 8, num_layers=3, num_heads=3, hidden_dim=24, mlp_dim=96, num_classes=5)


def _vit_from_timm() -> nn.Module:
    names = {
        "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj",
        "blocks.": "encoder.layers.encoder_layer_", "norm1": "ln_1", "norm2": "ln_2", "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj", "attn.": "self_attention.", "fc1": "0", "fc2": "3", "head.": "heads.head.",
    }  # fmt: skip
    tensors = renamed(build("cls").state_dict(), names)
    return loaded(_vit(), {key.replace("norm.", "encoder.ln."): value for key, value in tensors.items()})


def _swin_from_timm(name: str, build_theirs: Callable[[], nn.Module]) -> nn.Module:
    names = {
        "patch_embed.proj": "features.0.0", "patch_embed.norm": "features.0.2", "layers.0.blocks": "features.1",
        "layers.1.downsample": "features.2", "layers.1.blocks": "features.3", "fc1": "0", "fc2": "3", "head.fc": "head",
        "cpb_mlp.0": "cpb_mlp.0", "cpb_mlp.3": "cpb_mlp.2",
    }  # fmt: skip
    tensors = renamed(build(name).state_dict(), names)
    for key in [key for key in tensors if key.endswith(".q_bias")]:
        query, value = tensors.pop(key), tensors.pop(key.replace("q_bias", "v_bias"))
        tensors[key.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    return loaded(build_theirs(), tensors, ("relative_position_index", "relative_coords_table"))


CONVERTED = {
    "cls": _vit_from_timm,
    "swin": partial(_swin_from_timm, "swin", _swin),
    "swin_v2": partial(_swin_from_timm, "swin_v2", _swin_v2),
}


@every_method
@pytest.mark.parametrize("name", CONVERTED)
def test_maps_equal_those_of_timm(method: Any, name: str) -> None:
    theirs = build(name)
    for module in theirs.modules():
        if hasattr(module, "k_bias"):
            module.k_bias.zero_()  # as it is in v2
    assert_same_maps(method, theirs, CONVERTED[name](), images(name))


@pytest.mark.parametrize("size", [(32, 32), (40, 36), (33, 27), (12, 44)], ids=str)
@pytest.mark.parametrize("name", ["swin", "swin_v2"])
def test_windows_are_padded_before_they_are_shifted(name: str, size: tuple[int, int]) -> None:
    model, x = CONVERTED[name](), torch.rand(2, 3, *size, dtype=torch.float64)
    report = check(model, x)
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == (size[0] // 4, size[1] // 4)
    assert VTranM(model).attribute(x, target=1).shape == x.shape


def _maxvit() -> nn.Module:
    """16 x 16 tokens leave the stem, then 8 x 8 and 4 x 4: in windows and dilated groups of 2 x 2."""
    torch.manual_seed(0)
    model = MaxVit((32, 32), 8, 2, [8, 16], [2, 1], head_dim=4, stochastic_depth_prob=0.1, num_classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    return model.double().eval()


def test_every_layer_of_maxvit_is_rebuilt() -> None:
    report = check(_maxvit(), images("cls", 2))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert (report.grid, len(report.stages)) == ((16, 16), 17)
    assert [said.partition(":")[0] for said in report.approximate] == ["blocks.0.layers.0.layers.MBconv and 2 more"]


@every_method
@pytest.mark.filterwarnings("ignore:.*mixes tokens where")
def test_maxvit_in_a_batch(method: Any) -> None:
    explained, x, options = method(_maxvit()), images("cls", 2), without_relu(method)
    skip_undefined(method, explained.forward_func, x=x)
    whole = explained.attribute(x, target=[1, 2], **options)
    each = torch.cat([explained.attribute(x[i : i + 1], target=i + 1, **options) for i in range(2)])
    assert whole.shape == x.shape
    assert whole.abs().max() > 0
    assert (whole - each).abs().max() <= 1e-9 * whole.abs().max()


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"])
def test_published_models_have_a_layout(name: str) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    assert layout_for(model).grid(224, 224) == {"vit_b_32": (7, 7), "maxvit_t": (112, 112)}.get(name, (56, 56))


def test_every_class_with_a_layout_exists() -> None:
    paths = [key for key in (*_REGISTRY, *_BLOCKS) if isinstance(key, str) and key.startswith("torchvision.")]
    assert len(paths) == 6
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)
