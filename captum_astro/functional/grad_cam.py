"""Grad-CAM and Grad-CAM++ on channels x positions, whether the positions are patches or pixels of a feature map.

Sources: Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv 1610.02391), Eq. 1 and 2; Chattopadhay et al., "Grad-CAM++",
WACV 2018 (arXiv 1710.11063), Eq. 19, without the exponential of its Eq. 12, as in all implementations.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import widen

_EPS = 1e-6  # as in the published implementations of Grad-CAM++


def grad_cam(activation: torch.Tensor, gradient: torch.Tensor, relu: bool = True) -> torch.Tensor:
    """``relu( sum_c w_c A_c )`` with ``w_c`` the gradient's mean over the positions.

    Args:
        activation: ``A``, ``(B, positions, channels)``.
        gradient: ``dy/dA``, the same shape.
        relu: Whether negative values are set to 0, as published.

    Returns:
        ``(B, positions)``.
    """
    activation, gradient = widen(activation), widen(gradient)
    cam = torch.einsum("bc,bpc->bp", gradient.mean(1), activation)
    return cam.clamp(min=0) if relu else cam


def grad_cam_plus_plus(activation: torch.Tensor, gradient: torch.Tensor, relu: bool = True) -> torch.Tensor:
    """``relu( sum_c w_c A_c )`` with ``w_c = sum_p alpha_pc relu(g_pc)``.

    ``alpha_pc = g^2 / (2 g^2 + (sum_p A_pc) g^3 + 1e-6)``, 0 where g is 0.

    Args:
        activation: ``A``, ``(B, positions, channels)``.
        gradient: ``g = dy/dA``, the same shape.
        relu: Whether negative values are set to 0, as published.

    Returns:
        ``(B, positions)``.
    """
    activation, gradient = widen(activation), widen(gradient)
    square = gradient * gradient
    alpha = square / (2 * square + activation.sum(1, keepdim=True) * square * gradient + _EPS)
    alpha = torch.where(gradient != 0, alpha, torch.zeros_like(alpha))
    cam = torch.einsum("bc,bpc->bp", (alpha * gradient.clamp(min=0)).sum(1), activation)
    return cam.clamp(min=0) if relu else cam
