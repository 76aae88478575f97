"""Loading timm models by name, with errors that suggest a fix."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import timm
import torch
from PIL import Image
from torch import nn


class ModelError(ValueError):
    """A model that cannot be created, or weights that cannot be loaded into it."""


def load_model(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    device: str = "cpu",
    num_classes: int | None = None,
) -> nn.Module:
    """Create a timm model in eval mode.

    Args:
        name: A name that timm knows, with or without a tag, including this package's models.
        pretrained: Load the published weights, which timm downloads or has in its cache.
        checkpoint: A weights file to load instead: safetensors, or a weights-only PyTorch file.
        device: The device to move it to.
        num_classes: Number of classes, if it differs from the published model's, as for a checkpoint trained on other
            data.

    Raises:
        ModelError: If there is no such model, its weights cannot be downloaded, or the file does not match it.
    """
    known = timm.list_models()
    if name.split(".", maxsplit=1)[0] not in known and ":" not in name:
        near = [model for model in sorted(known, key=len) if model.startswith(name.rstrip("0123456789_"))][:3]
        near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ModelError(f"timm has no model {name!r}." + (f" Did you mean {', '.join(near)}?" if near else ""))
    try:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        model = timm.create_model(name, pretrained=pretrained and checkpoint is None, **classes)
    except Exception as error:
        if not pretrained or checkpoint is not None:
            raise ModelError(f"{name} could not be created: {_first_line(error)}") from error
        raise ModelError(
            f"The published weights of {name} could not be downloaded ({_first_line(error)}). Give a file with "
            f"--checkpoint, or random weights with --no-pretrained."
        ) from error
    if checkpoint is not None:
        _load(model, name, checkpoint)
    try:
        model = model.eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"The model cannot be put on {device!r}: {_first_line(error)}") from error
    return cast(nn.Module, model)


def preprocessing(model: nn.Module) -> tuple[Callable[[Image.Image], torch.Tensor], dict[str, Any]]:
    """The model's own evaluation transform, from an RGB image to ``(3, H, W)``, and its settings (mean, std, ...)."""
    config = timm.data.resolve_model_data_config(model)
    return timm.data.create_transform(**config, is_training=False), config


def class_names(model: nn.Module, count: int) -> list[str]:
    """A name for each class: the model's own, ImageNet's for an ImageNet-1k model, otherwise the index.

    Args:
        model: A timm model.
        count: The number of its outputs.
    """
    config = getattr(model, "pretrained_cfg", {}) or {}
    if config.get("label_names") and len(config["label_names"]) == count:
        return [str(name) for name in config["label_names"]]
    if config.get("num_classes") == count == 1000:
        info = timm.data.ImageNetInfo()
        return [info.index_to_description(index) for index in range(count)]
    return [str(index) for index in range(count)]


def _load(model: nn.Module, name: str, checkpoint: Path) -> None:
    if not checkpoint.is_file():
        raise ModelError(f"{checkpoint}: there is no such file.")
    try:
        timm.models.load_checkpoint(model, str(checkpoint), weights_only=True)
    except Exception as error:
        if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
            lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
            raise ModelError(f"{checkpoint} does not match {name}: {' '.join(lines)[:300]}") from error
        raise ModelError(f"{checkpoint} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
