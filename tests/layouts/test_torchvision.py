"""torchvision's models: the same maps as timm's with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import swin_transformer as swin
from torchvision.models.vision_transformer import VisionTransformer

from captum_astro import VTranM, check
from tests.families import build, images
from tests.libraries import assert_same_maps, every_method, loaded, renamed

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
