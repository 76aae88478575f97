"""Grad-CAM under artificial astrocytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from captum_astro.astro.opened import unmodulated
from captum_astro.astro.vita import ViTA
from captum_astro.attr.token_grad_cam import TokenGradCAM
from captum_astro.capture.call import Call
from captum_astro.capture.target import Target
from captum_astro.layouts.unwrap import unwrapped


class ViTAGradCAM(TokenGradCAM):
    """Grad-CAM on the modulated model, for the class that the unmodulated model predicts.

    Without a ``target``, each image's class is the unmodulated model's top prediction, which costs one more forward
    pass: astrocytes serve explanation, not classification. With `captum.attr.NoiseTunnel` pass the target,
    otherwise each noisy copy is explained for its own prediction.

    Source: ViTA, arXiv 2505.21513; for what is known of it see `captum_astro.astro.ViTA`. Grad-CAM: arXiv
    1610.02391.

    Args:
        forward_func: The model, unmodulated.
        layer: The layer of Grad-CAM, as in `TokenGradCAM`; by default the input of the last block's attention.
        modulated_layer: The linear layer with astrocytes, as a module or its dotted path; by default
            ``blocks.0.attn.proj``, the output projection of the first attention.
        modulation: ``k``, ``tau``, ``phi``, ``alpha``, ``beta``, ``token``, ``rescale``, ``counter`` and ``feedback``,
            as in `captum_astro.astro.ViTA`. The defaults are the published best setting.

    Raises:
        UnsupportedModelError: If no layer is given and the model has neither a layout nor ``feature_info``.
        ValueError: If a layer is not part of the model, or a value is out of range.
        TypeError: If the modulated layer is not linear.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ViTAGradCAM(model, k=4, tau=2).attribute(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 3, 224, 224])
    """

    source = "ViTA, arXiv 2505.21513"

    def __init__(
        self,
        forward_func: nn.Module,
        layer: nn.Module | str | None = None,
        modulated_layer: nn.Module | str | None = None,
        **modulation: Any,
    ) -> None:
        super().__init__(forward_func, layer)
        model = unwrapped(forward_func)
        self.vita = ViTA(model, layer=modulated_layer, **modulation)
        if isinstance(layer, str):
            self.layer = model.get_submodule(layer)

    def _explained(self) -> nn.Module:
        return self.vita

    def _target(self, call: Call) -> Target:
        if call.target.classes is not None:
            return call.target
        assert isinstance(call.model, ViTA)
        with unmodulated(), torch.no_grad():
            output = replace(call, model=call.model.model).run()
        return replace(call.target, classes=output.argmax(-1) if output.ndim > 1 else None)
