"""The small trained Vision Transformer that ships in the package, registered with timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights"
NAME = "scenes_vit_tiny_patch4_64"

default_cfgs = generate_default_cfgs(
    {
        f"{NAME}.digits": {
            "file": str(WEIGHTS / f"{NAME}.safetensors"),
            "num_classes": 10,
            "input_size": (3, 64, 64),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "label_names": tuple("0123456789"),
            "license": "bsd-3-clause",
        }
    }
)


@register_model
def scenes_vit_tiny_patch4_64(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A plain ViT for the bundled scenes: 257 tokens, width 96, 6 blocks, 10 digits, 0.7 million parameters.

    The weights were trained by ``captum-astro train scenes`` on the training digits of
    `captum_astro.data.scenes.Scenes`, and are stored in half precision inside the package.

    Example:
        >>> import timm, captum_astro
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
    """
    args = {"img_size": 64, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3}
    model: VisionTransformer = build_model_with_cfg(VisionTransformer, NAME, pretrained, **(args | kwargs))
    return model
