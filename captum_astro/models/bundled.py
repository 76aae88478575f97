"""The small trained models included in the package; those of timm's own classes are registered with timm here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.pit import PoolingVisionTransformer
from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights"
PLAIN = "scenes_vit_tiny_patch4_64"
PIT = "scenes_pit_tiny_patch4_64"
ASTROMORPHIC = "astromorphic_scenes_tiny_patch8_64"
MODELS = {"ViT": PLAIN, "astromorphic": ASTROMORPHIC}
DIGITS = "0123456789"


def bundled_cfg(name: str, size: int, first_conv: str, labels: Iterable[str], **changes: Any) -> dict[str, Any]:
    """The pretrained configuration, in timm's form, of a model whose weights are in the package."""
    return {
        "file": str(WEIGHTS / f"{name}.safetensors"),
        "num_classes": 10,
        "input_size": (3, size, size),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": first_conv,
        "classifier": "head",
        "label_names": tuple(labels),
        "license": "bsd-3-clause",
    } | changes


default_cfgs = generate_default_cfgs(
    {
        f"{PLAIN}.digits": bundled_cfg(PLAIN, 64, "patch_embed.proj", DIGITS),
        f"{PIT}.digits": bundled_cfg(PIT, 64, "patch_embed.conv", DIGITS),
    }
)


@register_model
def scenes_vit_tiny_patch4_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A plain ViT for the bundled scenes: 257 tokens, width 96, 6 blocks, 10 digits, 0.7 million parameters.

    The weights were trained by ``captum-astro train scenes --bfloat16`` on the training digits of
    `captum_astro.data.scenes.Scenes`, and are stored in half precision inside the package.

    Example:
        >>> import timm, captum_astro
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
    """
    args = {"img_size": 64, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3}
    model: VisionTransformer = build_model_with_cfg(VisionTransformer, PLAIN, pretrained, **(args | kwargs))
    return model


@register_model
def scenes_pit_tiny_patch4_64(pretrained: bool = False, **kwargs: Any) -> PoolingVisionTransformer:
    """A PiT for the bundled scenes: two stages and a class token, 0.7 million parameters.

    The first stage has 16 x 16 patches and 5 blocks of width 96, the second 8 x 8 patches and one block. The weights
    are those of the plain model, whose patches are averaged before the last block
    (`captum_astro.training.pooled.start_from`), in half precision; they were not trained further.

    Example:
        >>> import timm, captum_astro
        >>> model = timm.create_model("scenes_pit_tiny_patch4_64", pretrained=True).eval()
    """
    args = {
        "img_size": 64,
        "patch_size": 4,
        "stride": 4,
        "base_dims": (32, 32),
        "depth": (5, 1),
        "heads": (3, 3),
        "mlp_ratio": 4,
    }
    out_indices = kwargs.pop("out_indices", (0, 1))
    model: PoolingVisionTransformer = build_model_with_cfg(
        PoolingVisionTransformer,
        PIT,
        pretrained,
        feature_cfg={"feature_cls": "hook", "out_indices": out_indices},
        **(args | kwargs),
    )
    return model
