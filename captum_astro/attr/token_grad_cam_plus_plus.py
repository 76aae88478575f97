"""Grad-CAM++ on the channels of the tokens, or of any feature map."""

from __future__ import annotations

import torch

from captum_astro.attr.token_grad_cam import TokenGradCAM
from captum_astro.functional.grad_cam import grad_cam_plus_plus


class TokenGradCAMPlusPlus(TokenGradCAM):
    """As `TokenGradCAM`, with channel weights ``sum_p alpha_pc relu(g_pc)``, which favour positive gradients.

    ``alpha = g^2 / (2 g^2 + (sum_p A) g^3 + 1e-6)``, 0 where g is 0. These weights need more
    precision than half: the model runs in at least float32, without autocast.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv 1710.11063), Eq. 19.

    Args:
        forward_func: The model.
        layer: A module of the model, or its dotted path; the default is that of `TokenGradCAM`.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("resnet18").eval()
        >>> x = torch.rand(1, 3, 64, 64)
        >>> TokenGradCAMPlusPlus(model, "layer4").attribute(x, target=1, attribute_to="grid").shape
        torch.Size([1, 1, 2, 2])
    """

    source = "Chattopadhay et al., WACV 2018, arXiv 1710.11063"
    _cam = staticmethod(grad_cam_plus_plus)
    _least = torch.float32
