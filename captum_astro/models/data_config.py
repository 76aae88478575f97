"""The preprocessing that a model was evaluated with, at the size that it was built for."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn


def described(model: nn.Module, *words: str) -> nn.Module:
    """The part of a model that says what it is: timm's model in a wrapper; the model itself if no part does.

    Args:
        model: Any model.
        words: The attributes in which it says so; by default timm's.

    Example:
        >>> inside = timm.create_model("test_vit")
        >>> described(nn.Sequential(inside)) is inside
        True
    """
    wanted = words or ("pretrained_cfg",)
    return next((part for part in model.modules() if any(getattr(part, word, None) for word in wanted)), model)


def data_config(model: nn.Module) -> dict[str, Any]:
    """A model's preprocessing as timm describes it: ``input_size`` (C, H, W), ``mean``, ``std``, ``crop_pct``, ...

    timm gives the published size, also for a model that was created with another ``img_size``. Here the size is that of
    the patch embedding, if it has one.

    Args:
        model: A timm model, or a wrapper around one.

    Example:
        >>> data_config(timm.create_model("test_vit", img_size=96))["input_size"]
        (3, 96, 96)
    """
    inside = described(model)
    config: dict[str, Any] = timm.data.resolve_model_data_config(inside, args=_stated(model))
    channels, *published = config["input_size"]
    size = getattr(getattr(inside, "patch_embed", None), "img_size", None) or published
    height, width = (size, size) if isinstance(size, int) else size
    return {**config, "input_size": (channels, int(height), int(width))}


def _stated(model: nn.Module) -> dict[str, Any]:
    """What open_clip's image encoders say of their preprocessing, in timm's words."""
    said = getattr(model, "preprocess_cfg", None) or {}
    size = said.get("size")
    sides = (size, size) if isinstance(size, int) else size
    found = {key: said.get(key) for key in ("mean", "std", "interpolation")}
    return found | {"input_size": sides and (3, *sides), "crop_pct": 1.0} if said else {}
