"""Gradient rules: values are unchanged, and gradients are modified, so that input times gradient is the relevance.

Sources: Ali et al., "XAI for Transformers: Better Explanations through Conservative Propagation", ICML 2022
(arXiv 2202.07304, AH and LN rules); Achtibat et al., "AttnLRP", ICML 2024 (arXiv 2402.05602). These methods may be
covered by patents; see the documentation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_astro.functional.attention import widen
from captum_astro.functional.relevance_rules import factors


class ScaledGradient(torch.autograd.Function):
    """The identity, with its gradient multiplied by a factor: the uniform rule of AttnLRP for products (Eq. 13)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """``x`` unchanged."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        return gradient[0] * ctx.factor, None


def inverse_deviation(x: Tensor, centred: bool, eps: float | None) -> Tensor:
    """``1 / sigma`` over the last dimension of ``(..., d)``: the factor by which a norm multiplies each token.

    Args:
        x: ``(..., d)``.
        centred: Whether the norm subtracts the mean.
        eps: The epsilon of the norm; None for the dtype's own, as in PyTorch's RMS norm.
    """
    x = widen(x)
    centre = x - x.mean(-1, keepdim=True) if centred else x  # several times faster than x.var
    power = centre.pow(2).mean(-1)
    return (power + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()


def frozen_norm(
    x: Tensor, inverse_deviation: Tensor, centred: bool, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """A norm whose standard deviation is a constant: the LN rule, ``y = (x - mean) / [sigma] * weight + bias``.

    Args:
        x: ``(..., d)``.
        inverse_deviation: ``1 / sigma``, ``(...)``.
        centred: Whether the mean is subtracted.
        weight: ``(d,)`` or None.
        bias: ``(d,)`` or None.
    """
    wide = widen(x)
    y = (wide - wide.mean(-1, keepdim=True) if centred else wide) * inverse_deviation.detach()[..., None]
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype)


def identity_slope(x: Tensor, output: Tensor) -> Tensor:
    """``f(x) / x``, elementwise; 0 where x is 0."""
    return torch.where(x == 0, torch.zeros_like(output), output / torch.where(x == 0, torch.ones_like(x), x)).detach()


def identity_activation(x: Tensor, output: Tensor) -> Tensor:
    """An activation as ``[f(x) / x] x``: relevance is passed on unchanged (AttnLRP, Eq. 9); 0 where x is 0."""
    return identity_slope(x, output) * x


def attention_with_constant_weights(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """The AH rule: attention weights are constants, so gradients reach only the values."""
    return F.scaled_dot_product_attention(query.detach(), key.detach(), value, **options)


def attention_with_shared_gradients(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """AttnLRP's attention: half of the relevance to the values, a quarter each to queries and keys.

    If only queries or only keys are activations, they get the other half. The softmax keeps its gradient.
    """
    share = 0.5 / factors((query.requires_grad, key.requires_grad))
    return F.scaled_dot_product_attention(
        ScaledGradient.apply(query, share),
        ScaledGradient.apply(key, share),
        ScaledGradient.apply(value, 0.5),
        **options,
    )
