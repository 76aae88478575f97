"""Grad-CAM++ under artificial astrocytes."""

from __future__ import annotations

import torch

from captum_astro.attr.vita_grad_cam import ViTAGradCAM
from captum_astro.functional.grad_cam import grad_cam_plus_plus


class ViTAGradCAMPlusPlus(ViTAGradCAM):
    """Grad-CAM++ on the modulated model, for the class that the unmodulated model predicts.

    Source: ViTA, arXiv 2505.21513; Grad-CAM++: arXiv 1710.11063. Everything else is as in `ViTAGradCAM`.

    Args:
        forward_func: The model, unmodulated.
        layer: The layer of Grad-CAM++.
        modulated_layer: The linear layer with astrocytes.
        modulation: As in `ViTAGradCAM`.

    Raises:
        UnsupportedModelError: If no layer is given and the model has neither a layout nor ``feature_info``.
        ValueError: If a layer is not part of the model, or a value is out of range.
        TypeError: If the modulated layer is not linear.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ViTAGradCAMPlusPlus(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    _cam = staticmethod(grad_cam_plus_plus)
    _least = torch.float32
