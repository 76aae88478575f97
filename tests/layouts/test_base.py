from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from captum_astro import UnsupportedModelError, VTranM
from captum_astro.layouts import layout_for
from captum_astro.layouts.blocks import describe_blocks
from tests.families import _vit, build, images


def test_model_without_a_layout_raises() -> None:
    with pytest.raises(UnsupportedModelError, match=r"ConvNeXt has no layout.*register_layout"):
        layout_for(timm.create_model("convnext_atto"))
    with pytest.raises(UnsupportedModelError, match="several models"):
        layout_for(nn.ModuleList([build("cls"), build("beit")]))


@pytest.mark.parametrize("pool", ["max", "avgmax", ""])
def test_poolings_without_weights_are_rejected(pool: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"pools by '{pool}'"):
        VTranM(_vit(global_pool=pool))


def test_unknown_blocks_and_attention_are_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0 is a Linear"):
        describe_blocks([nn.Linear(2, 2)])
    model = build("cls")
    model.blocks[1].attn = nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.attn is a Identity"):
        layout_for(model)


def test_quantised_models_are_named() -> None:
    model = build("cls", torch.float32)
    model.blocks[0].attn.proj = nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.attn\.proj is a Identity without a weight"):
        layout_for(model)


def test_rectangular_and_dynamic_grids() -> None:
    model = build("dynamic_rectangular")
    for size in ((24, 40), (64, 32)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        grid = VTranM(model).attribute(x, target=1, attribute_to="grid")
        assert grid.shape == (1, 1, size[0] // 8, size[1] // 8)


def test_patch_dropout_is_named() -> None:
    model = _vit(patch_drop_rate=0.5).double().train()
    with pytest.warns(UserWarning, match="train mode"), pytest.raises(UnsupportedModelError, match="patch dropout"):
        VTranM(model).attribute(images("cls"), target=1)
