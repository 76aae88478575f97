"""Hugging Face's models: the same maps as timm's with the same weights, and the read-outs of their classifiers."""

from __future__ import annotations

import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from captum_astro import AttentionRollout, TokenGradCAM, UnsupportedModelError, VTranM, check
from captum_astro.layouts.base import _REGISTRY, layout_for
from captum_astro.layouts.blocks import _BLOCKS
from tests import families
from tests.families import build, images
from tests.libraries import assert_same_maps, every_method, loaded, renamed, skip_undefined, split_qkv, without_relu

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


def _swin_v2() -> nn.Module:
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection", "patch_embed.norm": "embeddings.norm",
        "layers.1.downsample": "layers.0.downsample", "layers.": "encoder.layers.", "head.fc": "classifier",
        "attn.q_bias": "attention.self.query.bias", "attn.v_bias": "attention.self.value.bias",
        "attn.cpb_mlp": "attention.self.continuous_position_bias_mlp", "attn.proj": "attention.output.dense",
        "attn.": "attention.self.", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", **_LAYER,
    }  # fmt: skip
    config = transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 3], window_size=4, mlp_ratio=2.0,
        num_labels=5, layer_norm_eps=1e-5,
    )  # fmt: skip
    theirs = split_qkv(build("swin_v2").state_dict(), ("query", "key", "value"))
    tensors = {"layernorm" + k[4:] if k.startswith("norm.") else k: v for k, v in theirs.items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith("k_bias")}
    return _model(config, "Swinv2ForImageClassification", names, tensors, "swinv2.")


def _distilled() -> nn.Module:
    names = {**_EMBEDDED, **_LAYER, "blocks.": "layers.", "head_dist.": "distillation_classifier."}
    tensors = {key.replace("norm.", "layernorm."): value for key, value in build("distilled").state_dict().items()}
    tensors = {"cls_classifier" + k[4:] if k.startswith("head.") else k: value for k, value in tensors.items()}
    return _model(transformers.DeiTConfig(**VIT), "DeiTForImageClassificationWithTeacher", names, tensors, "deit.")


def _beit() -> nn.Module:
    names = {
        "attn.relative_position_bias_table": "relative_position_bias.relative_position_bias_table",
        "attn.q_bias": "attention.q_proj.bias", "attn.v_bias": "attention.v_proj.bias", "gamma_": "lambda_",
        **_EMBEDDED, **_LAYER, "blocks.": "layers.", "head.": "classifier.", "fc_norm.": "pooler.layernorm.",
    }  # fmt: skip
    config = transformers.BeitConfig(
        **VIT, use_relative_position_bias=True, use_absolute_position_embeddings=True, layer_scale_init_value=0.5
    )
    return _model(config, "BeitForImageClassification", names, dict(build("beit").state_dict()), "beit.")


def _siglip() -> nn.Module:
    names = {
        "patch_embed.proj": "embeddings.patch_embedding", "pos_embed": "embeddings.position_embedding.weight",
        "blocks.": "encoder.layers.", "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "attn.out_proj",
        "attn.": "self_attn.", "attn_pool.latent": "head.probe", "attn_pool.proj": "head.attention.out_proj",
        "attn_pool.in_proj": "head.attention.in_proj", "attn_pool.norm": "head.layernorm", "attn_pool.": "head.",
    }  # fmt: skip
    tensors = {key: value for key, value in build("map_pooling").state_dict().items() if not key.startswith("head.")}
    for kind in ("weight", "bias"):
        query, rest = tensors.pop(f"attn_pool.q.{kind}"), tensors.pop(f"attn_pool.kv.{kind}")
        tensors[f"attn_pool.in_proj_{kind}"] = torch.cat([query, rest])
    tensors = {"post_layernorm" + k[4:] if k.startswith("norm.") else k: value for k, value in tensors.items()}
    tensors["pos_embed"] = tensors["pos_embed"][0]
    config = transformers.SiglipVisionConfig(**VIT, hidden_act="gelu")
    return _model(config, "SiglipVisionModel", names, tensors, "")


CONVERTED = {
    "distilled": _distilled,
    "beit": _beit,
    "map_pooling": _siglip,
    "cls": _vit,
    "cls, eager": partial(_vit, "eager"),
    "swin": _swin,
    "swin, eager": partial(_swin, "eager"),
    "swin_v2, eager": _swin_v2,  # it has no other
}


@every_method
def test_clip_with_its_own_activation(method: Any) -> None:
    """It is computed in several operations, and seen as one."""
    torch.manual_seed(0)
    theirs = VisionTransformer(**families.SMALL, pre_norm=True, act_layer=QuickGELU).double().eval()
    theirs.head = nn.Identity()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    names = {
        "patch_embed.proj": "embeddings.patch_embedding", "pos_embed": "embeddings.position_embedding.weight",
        "cls_token": "embeddings.class_embedding", "norm_pre": "pre_layrnorm", "blocks.": "encoder.layers.",
        "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "attn.out_proj", "attn.": "self_attn.",
    }  # fmt: skip
    tensors = {"post_layernorm" + k[4:] if k.startswith("norm.") else k: v for k, v in theirs.state_dict().items()}
    tensors |= {"pos_embed": tensors["pos_embed"][0], "cls_token": tensors["cls_token"].flatten()}
    config = transformers.CLIPVisionConfig(**VIT, hidden_act="quick_gelu")
    assert_same_maps(method, theirs, _model(config, "CLIPVisionModel", names, tensors, ""), images("cls"))


@every_method
@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.one_in(3)
def test_maps_equal_those_of_timm(method: Any, name: str) -> None:
    family = name.split(",", maxsplit=1)[0]
    theirs, other = build(family), CONVERTED[name]()
    if family == "map_pooling":
        theirs.head = nn.Identity()  # features against features
    for module in theirs.modules():
        if isinstance(getattr(module, "k_bias", None), torch.Tensor) and family == "swin_v2":
            module.k_bias.zero_()  # which only a test would change
    assert_same_maps(method, theirs, other, images(family))
    assert other.config._attn_implementation == ("eager" if name.endswith("eager") else "sdpa")  # the user's own


@pytest.mark.parametrize("make", [_swin, _swin_v2])
@pytest.mark.parametrize("size", [(32, 32), (40, 36), (33, 27), (32, 44)], ids=str)
def test_swin_pads_images_and_then_windows(make: Any, size: tuple[int, int]) -> None:
    """A window as large as the smaller side of the grid is not shifted, not even along the other, in v1."""
    model, x = make(), torch.rand(2, 3, *size, dtype=torch.float64)
    report = check(model, x)
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == (-(-size[0] // 4), -(-size[1] // 4))
    assert VTranM(model).attribute(x, target=1).shape == x.shape


SMALL = {name: VIT[name] for name in ("image_size", "patch_size", "hidden_size", "num_attention_heads")}
SMALL |= {"num_hidden_layers": 2, "intermediate_size": 48, "num_labels": 5}


def _drawn(name: str) -> nn.Module:
    """A model with random weights, all of them far from their defaults."""
    kind, config, options = OTHERS[name]
    made = getattr(transformers, config)(**options)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(made).eval().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    return model


_VISION = {key: value for key, value in SMALL.items() if key != "num_labels"}
_TEXT = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1, "vocab_size": 50}
_BOTH = {"vision_config": _VISION, "text_config": _TEXT, "num_labels": 5}
_HEADLESS = {"vision_config": {**_VISION, "vision_use_head": False}, "text_config": _TEXT, "num_labels": 5}
_TIMM = {"architecture": "test_vit", "num_labels": 5, "model_args": {"img_size": 32, "depth": 2}}
# the class and its configuration
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit features": ("ViTModel", "ViTConfig", SMALL),
    "deit": ("DeiTForImageClassification", "DeiTConfig", SMALL),
    "deit distilled": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", SMALL),
    "vit msn": ("ViTMSNForImageClassification", "ViTMSNConfig", SMALL),
    "beit": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SMALL, "use_relative_position_bias": True, "layer_scale_init_value": 0.5},
    ),
    "beit, class token": (
        "BeitForImageClassification",
        "BeitConfig",
        {**SMALL, "use_shared_relative_position_bias": True, "use_mean_pooling": False},
    ),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", {**SMALL, "mlp_ratio": 2}),
    "dinov2 features": ("Dinov2Model", "Dinov2Config", {**SMALL, "mlp_ratio": 2, "use_swiglu_ffn": True}),
    "dinov2 registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**SMALL, "mlp_ratio": 2, "num_register_tokens": 3},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**SMALL, "num_register_tokens": 2}),
    "dinov3 gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SMALL, "use_gated_mlp": True, "hidden_act": "silu", "num_register_tokens": 1},
    ),
    "clip features": ("CLIPVisionModel", "CLIPVisionConfig", _VISION),
    "clip projected": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", _VISION),
    "clip": ("CLIPForImageClassification", "CLIPConfig", _BOTH),
    "siglip features": ("SiglipVisionModel", "SiglipVisionConfig", _VISION),
    "siglip": ("SiglipForImageClassification", "SiglipConfig", _BOTH),
    "siglip, no head": ("SiglipForImageClassification", "SiglipConfig", _HEADLESS),
    "timm": ("TimmWrapperForImageClassification", "TimmWrapperConfig", _TIMM),
    "timm features": ("TimmWrapperModel", "TimmWrapperConfig", _TIMM),
}
# how the first of the final tokens are read, where not by the class token alone; the others are not read
READ = {
    "deit distilled": [0.5, 0.5],
    "beit": [0.0] + [1 / 16] * 16,
    "dinov2": [0.5] + [1 / 32] * 16,
    "dinov2 registers": [0.5, 0.0, 0.0, 0.0] + [1 / 32] * 16,
    "clip": [0.0] + [1 / 16] * 16,
    "siglip": [1 / 16] * 16,
    "siglip, no head": [1 / 16] * 16,
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_identity_holds_and_the_read_out_is_right(name: str) -> None:
    model, x = _drawn(name), images("cls", 2)
    report = check(model, x)
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == ((2, 2) if name.startswith("timm") else (4, 4))
    layout = layout_for(model)
    if layout.pooling is None:
        expected = torch.zeros(report.tokens, dtype=torch.float64)
        read = torch.tensor(READ.get(name, [1.0]), dtype=torch.float64)
        expected[: len(read)] = read
        torch.testing.assert_close(layout.readout(report.tokens), expected)


@every_method
@pytest.mark.parametrize("name", ["dinov2 registers", "dinov3 gated", "clip projected", "siglip features", "beit"])
@pytest.mark.one_in(3)
def test_every_method_and_a_batch_equals_single_calls(method: Any, name: str) -> None:
    model, x = _drawn(name), images("cls", 2)
    skip_undefined(method, model, x=x)
    explained = method(model)
    whole = explained.attribute(x, target=[1, 2], **without_relu(method))
    each = [explained.attribute(one[None], target=c, **without_relu(method)) for one, c in zip(x, (1, 2), strict=True)]
    assert whole.shape == x.shape
    assert whole.abs().max() > 0
    assert (whole - torch.cat(each)).abs().max() <= 1e-9 * whole.abs().max()


@pytest.mark.parametrize("name", ["vit features", "clip features", "dinov2", "dinov3"])
def test_other_sizes_of_images(name: str) -> None:
    """DINOv2 and DINOv3 take any size; the others if they are asked to interpolate their positions."""
    model, x = _drawn(name), torch.rand(1, 3, 45, 24, dtype=torch.float64)
    asked = {"vit features": (None, True), "clip features": True}.get(name, ())
    grid = AttentionRollout(model).attribute(x, attribute_to="grid", additional_forward_args=asked or None)
    assert grid.shape == (1, 1, 5, 3)
    pixels = AttentionRollout(model).attribute(x, additional_forward_args=asked or None)
    assert torch.equal(pixels[..., 40:, :], torch.zeros_like(pixels[..., 40:, :]))  # which no patch covers


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model, x = _drawn("dinov2 registers"), images("cls", 2)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert torch.equal(VTranM(again).attribute(x, target=1), VTranM(model).attribute(x, target=1))


@pytest.mark.parametrize("name", ["vit features", "clip projected", "timm features"])
@pytest.mark.parametrize("method", [VTranM, TokenGradCAM], ids=lambda m: m.__name__)
def test_the_softmax_of_features_is_warned_of(method: Any, name: str) -> None:
    model, x = _drawn(name), images("cls", 1)
    with pytest.warns(UserWarning, match="has no classifier, so its features are explained: their softmax is not"):
        method(model).attribute(x, target=1, output="probability", **without_relu(method))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(model).attribute(x, target=1, output="logit", **without_relu(method))
        classifier = _drawn("dinov2")
        method(classifier).attribute(x, target=1, output="probability", **without_relu(method))


def test_recomputed_layers_are_refused() -> None:
    model, x = _drawn("dinov2"), images("cls", 1)
    model.gradient_checkpointing_enable()
    assert VTranM(model).attribute(x, target=1).shape == x.shape  # nothing is recomputed in eval mode
    with pytest.raises(UnsupportedModelError, match="gradient_checkpointing_disable"):
        VTranM(model.train())


def test_every_class_with_a_layout_exists() -> None:
    paths = [key for key in (*_REGISTRY, *_BLOCKS) if isinstance(key, str) and key.startswith("transformers.")]
    assert len(paths) > 15
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)
