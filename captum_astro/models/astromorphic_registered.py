"""The astromorphic Vision Transformers that are registered with timm."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from captum_astro.models.astromorphic_vit import AstromorphicVisionTransformer
from captum_astro.models.bundled import ASTROMORPHIC, DIGITS, bundled_cfg


def _cfg(**changes: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "bsd-3-clause",
    } | changes


CIFAR10 = "astromorphic_cifar10_tiny_patch4_32"
_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

default_cfgs = generate_default_cfgs(
    {
        "astromorphic_vit_tiny_patch16_224.untrained": _cfg(),
        "astromorphic_vit_small_patch16_224.untrained": _cfg(),
        "astromorphic_vit_cifar10.untrained": _cfg(
            num_classes=10, input_size=(3, 32, 32), crop_pct=1.0, first_conv="patch_embed.stem.0", **_CIFAR
        ),
        f"{CIFAR10}.cifar10": bundled_cfg(CIFAR10, 32, "patch_embed.stem.0", _CLASSES, **_CIFAR),
        f"{ASTROMORPHIC}.digits": bundled_cfg(ASTROMORPHIC, 64, "patch_embed.stem.0", DIGITS),
    }
)


def _create(name: str, pretrained: bool, args: dict[str, Any], given: dict[str, Any]) -> AstromorphicVisionTransformer:
    out_indices = given.pop("out_indices", 3)
    model: AstromorphicVisionTransformer = build_model_with_cfg(
        AstromorphicVisionTransformer,
        name,
        pretrained,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **(args | given),
    )
    return model


@register_model
def astromorphic_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> AstromorphicVisionTransformer:
    """The size of ViT-tiny: 197 tokens, width 192, 12 blocks, 3 heads."""
    args = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
    return _create("astromorphic_vit_tiny_patch16_224", pretrained, args, kwargs)


@register_model
def astromorphic_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> AstromorphicVisionTransformer:
    """The size of ViT-small: 197 tokens, width 384, 12 blocks, 6 heads."""
    args = {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
    return _create("astromorphic_vit_small_patch16_224", pretrained, args, kwargs)


@register_model
def astromorphic_vit_cifar10(pretrained: bool = False, **kwargs: Any) -> AstromorphicVisionTransformer:
    """The paper's size for CIFAR-10: 256 tokens, width 256, 8 blocks, 8 heads, convolution first, average pooling.

    Example:
        >>> import timm, torch
        >>> timm.create_model("astromorphic_vit_cifar10", alpha=1.0)(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    args = {
        "patch_size": 2,
        "embed_dim": 256,
        "depth": 8,
        "num_heads": 8,
        "class_token": False,
        "global_pool": "avg",
        "stem_width": 64,
        "final_activation": True,
    }
    return _create("astromorphic_vit_cifar10", pretrained, args, kwargs)


@register_model
def astromorphic_cifar10_tiny_patch4_32(pretrained: bool = False, **kwargs: Any) -> AstromorphicVisionTransformer:
    """For CIFAR-10 on a CPU: 64 tokens, width 96, 4 blocks, 4 heads, convolution first, 0.3 million parameters.

    The weights were trained by ``captum-astro train cifar10 --dim 96 --epochs 24``, and are stored in half precision
    inside the package.

    Example:
        >>> import timm, captum_astro
        >>> model = timm.create_model("astromorphic_cifar10_tiny_patch4_32", pretrained=True).eval()
    """
    args = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "class_token": False,
        "global_pool": "avg",
        "stem_width": 32,
        "final_activation": True,
    }
    return _create(CIFAR10, pretrained, args, kwargs)


@register_model
def astromorphic_scenes_tiny_patch8_64(pretrained: bool = False, **kwargs: Any) -> AstromorphicVisionTransformer:
    """For the bundled scenes: 65 tokens, width 96, 6 blocks, 3 heads, convolution first, 0.8 million parameters.

    The weights were trained by ``captum-astro train scenes --model astromorphic_scenes_tiny_patch8_64``, and are
    stored in half precision inside the package.

    Example:
        >>> import timm, captum_astro
        >>> model = timm.create_model("astromorphic_scenes_tiny_patch8_64", pretrained=True).eval()
    """
    args = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3, "stem_width": 16}
    return _create(ASTROMORPHIC, pretrained, args, kwargs)
