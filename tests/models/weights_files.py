"""A small ViT registered with timm, and its weights in the forms in which weights are found."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.vision_transformer import VisionTransformer

from captum_astro.models.loading import load_model

NAME, DINO, LARGE = "weights_vit", "weights_dino", "weights_vit_48"  # for timm, from here on
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 10}
COMMON = (
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("cls_token", "embeddings.cls_token"),
    ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"),
)
VIT = (
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)
DINOV2 = (
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
)

Tensors = dict[str, torch.Tensor]


def _registered(name: str, **own: Any) -> None:
    def made(pretrained: bool = False, **options: Any) -> VisionTransformer:
        return build_model_with_cfg(VisionTransformer, name, pretrained, **(SMALL | own | options))

    made.__name__ = name
    register_model(made)


_registered(NAME)
_registered(LARGE, img_size=48)
_registered(DINO, init_values=1.0, reg_tokens=4, no_embed_class=True, num_classes=0)


def written(seed: int = 0, name: str = NAME, classes: int | None = None) -> torch.nn.Module:
    """The model that writes a file: every weight is drawn, none left at a constant."""
    model = load_model(name, pretrained=False, num_classes=classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model


def hugging_face(state: Tensors, kind: str = "vit") -> Tensors:
    """Under the names of transformers' ``ViTForImageClassification``, or of a ``dinov2`` in DINOv2's original form."""
    found = {}
    for key, value in state.items():
        name = key
        for own, theirs in COMMON + (VIT if kind == "vit" else DINOV2):
            name = name.replace(own, theirs)
        name = re.sub(r"^norm\.", "layernorm.", name)
        name = name.replace("head.", "classifier.") if name.startswith("head.") else f"{kind}.{name}"
        if ".attn.qkv." not in name:
            found[name] = value
            continue
        for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
            found[name.replace("attn.qkv", f"attention.attention.{part}")] = third.clone()
    return found


def dinov2(state: Tensors) -> Tensors:
    """As DINOv2 published its models with registers: the class token has a position."""
    found = {key.replace("reg_token", "register_tokens"): value for key, value in state.items()}
    position = torch.full_like(found["cls_token"], 0.25)
    found["cls_token"] = found["cls_token"] - position
    found["pos_embed"] = torch.cat([position, found["pos_embed"]], 1)
    return found | {"mask_token": torch.zeros(1, 24)}


def jax(state: Tensors) -> dict[str, np.ndarray]:
    """As Google published its ViTs: other names, and transposed matrices."""
    names = {
        "cls_token": "cls",
        "pos_embed": "Transformer/posembed_input/pos_embedding",
        "patch_embed.proj": "embedding",
        "norm": "Transformer/encoder_norm",
        "head": "head",
    }
    inside = {
        "norm1": "LayerNorm_0", "norm2": "LayerNorm_2", "attn.proj": "MultiHeadDotProductAttention_1/out",
        "mlp.fc1": "MlpBlock_3/Dense_0", "mlp.fc2": "MlpBlock_3/Dense_1",
    }  # fmt: skip
    found = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        array = value.numpy()
        block = re.match(r"blocks\.(\d+)\.(.*)", layer)
        where = names.get(layer or key) if block is None else f"Transformer/encoderblock_{block[1]}"
        if block is not None and block[2] == "attn.qkv":
            for part, third in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                shape = (24, 2, 12) if kind == "weight" else (2, 12)
                name = f"{where}/MultiHeadDotProductAttention_1/{part}/{'kernel' if kind == 'weight' else 'bias'}"
                found[name] = third.T.reshape(shape)
            continue
        if block is not None:
            where = f"{where}/{inside[block[2]]}"
        if not layer:
            found[where] = array
        elif kind == "bias":
            found[f"{where}/bias"] = array
        elif array.ndim == 1:
            found[f"{where}/scale"] = array
        else:
            turned = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            found[f"{where}/kernel"] = turned.reshape(2, 12, 24) if layer.endswith("attn.proj") else turned
    return found


def same_outputs(loaded: torch.nn.Module, model: torch.nn.Module, size: int = 32) -> None:
    """Bit by bit, in eval mode."""
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert not loaded.training
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
