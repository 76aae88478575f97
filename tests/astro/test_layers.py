from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import UnsupportedModelError, ViTA
from captum_astro.astro.layers import find_layer, find_layers, has_class_token, linear_at
from tests.families import build, images


def test_where_the_class_token_is_not_first() -> None:
    assert ViTA(timm.create_model("cait_xxs24_224"), layer="blocks.0.attn.proj").token == "mean"
    assert ViTA(build("cls")).token == ViTA(build("registers")).token == ViTA(build("eva02")).token == "cls"
    assert ViTA(build("average")).token == "mean"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("cls", "blocks.0.attn.proj"),
        ("eva02", "blocks.0.attn.proj"),
        ("parallel_things", "blocks.0.attns.0.attn.proj"),
        ("parallel_scaling", "blocks.0.attn_out_proj"),
        ("parallel_fused_out", "blocks.0.out_proj"),
        ("astromorphic_outside", "blocks.0.attn.proj"),
        ("astromorphic", "blocks.0.mlp.fc1"),  # whose attention has no projection
    ],
)
def test_the_first_projection(name: str, first: str) -> None:
    model = build(name)
    assert find_layer(model, None) == ViTA(model).layer == first


def test_the_first_projection_without_a_layout() -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224").eval()
    assert find_layer(swin, None) == ViTA(swin).layer == "layers.0.blocks.0.attn.proj"
    assert not has_class_token(swin)


@pytest.mark.parametrize("name", ["resnet10t", "levit_128s"])  # no attention; a projection that is not linear
def test_no_known_projection_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"first attention of \w+ is not known. Pass the layer"):
        ViTA(timm.create_model(name))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("blocks.[0-1].attn.*", [f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("qkv", "proj")]),
        ("*.fc1", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1", "blocks.2.mlp.fc1"]),
        ("blocks.1.mlp.fc?", ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]),
        ("blocks.1.mlp.fc1", ["blocks.1.mlp.fc1"]),
    ],
)
def test_layers_by_pattern(pattern: str, expected: list[str]) -> None:
    model = build("cls")
    assert find_layers(model, pattern) == expected
    assert find_layers(nn.Sequential(nn.Identity(), model), pattern) == [f"1.{path}" for path in expected]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("blocks.[7-9].*", r"No linear layer of \w+ matches 'blocks.\[7-9\].\*'. It has blocks.0.attn.qkv, .*, \.\.\."),
        ("blocks.9.mlp.fc1", "no layer 'blocks.9.mlp.fc1'"),
    ],
)
def test_a_pattern_that_matches_nothing(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_layers(build("cls"), pattern)


def test_by_module_by_path_and_in_a_wrapper() -> None:
    model, x = build("cls"), images("cls")
    assert find_layer(model, model.blocks[1].mlp.fc1) == "blocks.1.mlp.fc1"
    assert linear_at(model, "blocks.1.mlp.fc1") is model.blocks[1].mlp.fc1
    wrapper = nn.Sequential(nn.Identity(), model)
    for layer in ("blocks.1.mlp.fc1", "1.blocks.1.mlp.fc1", model.blocks[1].mlp.fc1):
        assert find_layer(wrapper, layer) == "1.blocks.1.mlp.fc1"
    assert find_layer(wrapper, None) == "1.blocks.0.attn.proj"
    assert has_class_token(wrapper)
    assert torch.equal(ViTA(nn.Sequential(model))(x), ViTA(model)(x))  # the layer of the model inside


@pytest.mark.parametrize("take", [find_layer, lambda model, layer: ViTA(model, layer=layer)], ids=["found", "ViTA"])
def test_bad_input(take: Any) -> None:
    model = build("cls")
    with pytest.raises(ValueError, match=r"no layer 'blocks\.9.*attention projects by 'blocks\.0\.attn\.proj'"):
        take(model, "blocks.9.attn.proj")
    with pytest.raises(ValueError, match="not one of VisionTransformer's"):
        take(model, nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"blocks\.0\.norm1 is a LayerNorm; astrocytes modulate"):
        take(model, "blocks.0.norm1")
    with pytest.raises(ValueError, match=r"several layers 'attn\.proj'"):
        take(model, "attn.proj")


def test_format_found_at_a_path() -> None:
    with pytest.raises(TypeError, match=r"^gone is a NoneType"):
        linear_at(nn.Sequential(), "gone")
