"""Models that return features instead of the scores of classes."""

from __future__ import annotations

from torch import nn

_WIDTHS = range(256, 2049, 64)  # of the spaces that image-text models share; the data sets' class counts are others


def lacks_classes(model: nn.Module) -> str | None:
    """Why a model's outputs belong to no classes; None if they may.

    Args:
        model: A timm model, one that sets ``num_classes`` and ``pretrained_cfg`` as timm does, or Hugging Face's.
    """
    if is_of_huggingface(model):
        return None if "Classification" in type(model).__name__ else "has no classifier, so its features are explained"
    outputs, published = getattr(model, "num_classes", None), getattr(model, "pretrained_cfg", None) or {}
    if outputs == 0:
        return "has no classifier (num_classes=0)"
    if outputs == published.get("num_classes") and outputs in _WIDTHS and not published.get("label_names"):
        return f"is the image encoder of an image-text model, which returns {outputs} features"
    return None


def is_of_huggingface(model: nn.Module) -> bool:
    """Whether a model is one of those of transformers, which name their tasks in their classes."""
    return type(model).__module__.startswith("transformers.models.")
