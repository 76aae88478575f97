"""Hugging Face's models: the same maps as timm's with the same weights, and the read-outs of their classifiers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tests.families import build, images
from tests.libraries import assert_same_maps, every_method, loaded, renamed, split_qkv

transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

VIT = {
    "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 96, "num_labels": 5, "layer_norm_eps": 1e-6,
}  # fmt: skip
QKV = ("q_proj", "k_proj", "v_proj")
_EMBEDDED = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection", "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings", "reg_token": "embeddings.register_tokens",
    "dist_token": "embeddings.distillation_token", "attn.proj": "attention.o_proj", "attn.": "attention.",
}  # fmt: skip
_LAYER = {"norm1": "layernorm_before", "norm2": "layernorm_after"}


def _model(config: Any, kind: str, names: dict[str, str], tensors: dict[str, torch.Tensor], prefix: str) -> nn.Module:
    """A classifier with timm's weights; what is not the head's is in a part of its own."""
    found = renamed(split_qkv(tensors, QKV), names)
    found = {key if key.startswith(("classifier", "cls_c", "dist")) else prefix + key: v for key, v in found.items()}
    return loaded(getattr(transformers, kind)(config), found, ("mask_token", "relative_position_index"))


def _vit(attention: str = "sdpa") -> nn.Module:
    names = {**_EMBEDDED, **_LAYER, "blocks.": "layers.", "head.": "classifier."}
    tensors = {key.replace("norm.", "layernorm."): v for key, v in build("cls").state_dict().items()}
    config = transformers.ViTConfig(**VIT, attn_implementation=attention)
    return _model(config, "ViTForImageClassification", names, tensors, "vit.")


def _swin(attention: str = "sdpa") -> nn.Module:
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "patch_embed.norm": "embeddings.norm",
        "layers.1.downsample": "layers.0.downsample", "layers.": "encoder.layers.", "head.fc": "classifier",
        "relative_position_bias_table": "relative_position_bias.relative_position_bias_table",
        "attn.proj": "attention.o_proj", "attn.": "attention.", **_LAYER,
    }  # fmt: skip
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 3], window_size=4, mlp_ratio=2.0,
        num_labels=5, layer_norm_eps=1e-5, attn_implementation=attention,
    )  # fmt: skip
    tensors = {"layernorm" + k[4:] if k.startswith("norm.") else k: v for k, v in build("swin").state_dict().items()}
    return _model(config, "SwinForImageClassification", names, tensors, "swin.")


CONVERTED = {
    "cls": _vit,
    "cls, eager": partial(_vit, "eager"),
    "swin": _swin,
    "swin, eager": partial(_swin, "eager"),
}


@every_method
@pytest.mark.parametrize("name", CONVERTED)
def test_maps_equal_those_of_timm(method: Any, name: str) -> None:
    family = name.split(",", maxsplit=1)[0]
    other = CONVERTED[name]()
    assert_same_maps(method, build(family), other, images(family))
    assert other.config._attn_implementation == ("eager" if name.endswith("eager") else "sdpa")  # the user's own
