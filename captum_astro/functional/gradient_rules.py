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
from torch.autograd.function import once_differentiable

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


class _FrozenNorm(torch.autograd.Function):
    """A norm in one operation, which keeps nothing but ``1 / sigma`` for its linear backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, centred: bool, eps: float | None, weight: Tensor | None, bias: Any) -> Tensor:
        """The norm of ``(..., d)``."""
        wide, weight, bias = widen(x), *(None if p is None else widen(p) for p in (weight, bias))
        if centred:
            y, _, scale = torch.native_layer_norm(wide, x.shape[-1:], weight, bias, 1e-5 if eps is None else eps)
        else:
            scale = inverse_deviation(wide, False, eps)[..., None]
            y = wide * scale
            y = y if weight is None else y.mul_(weight)
            y = y if bias is None else y.add_(bias)
        ctx.centred = centred
        ctx.save_for_backward(scale, weight)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Any) -> Any:
        """``(g w - mean(g w)) / sigma``."""
        scale, weight = ctx.saved_tensors
        wide = widen(gradient[0])
        wide = wide if weight is None else wide * weight
        wide = wide - wide.mean(-1, keepdim=True) if ctx.centred else wide
        return (wide * scale).to(gradient[0].dtype), None, None, None, None


def frozen_norm(x: Tensor, centred: bool, eps: float | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """A norm whose standard deviation is a constant: the LN rule, ``y = (x - mean) / [sigma] * weight + bias``.

    Args:
        x: ``(..., d)``.
        centred: Whether the mean is subtracted.
        eps: As in `inverse_deviation`.
        weight: ``(d,)`` or None.
        bias: ``(d,)`` or None.
    """
    if any(p is not None and p.requires_grad for p in (weight, bias)):  # which the fused form does not differentiate
        y: Tensor = widen(_FrozenNorm.apply(x, centred, eps, None, None))
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).to(x.dtype)
    fused: Tensor = _FrozenNorm.apply(x, centred, eps, weight, bias)
    return fused


def identity_slope(x: Tensor, output: Tensor) -> Tensor:
    """``f(x) / x``, elementwise and without a graph; 0 where x is 0."""
    x = x.detach()
    return torch.where(x == 0, 0.0, output.detach() / x)


def identity_activation(x: Tensor, output: Tensor) -> Tensor:
    """An activation as ``[f(x) / x] x``: relevance is passed on unchanged (AttnLRP, Eq. 9); 0 where x is 0."""
    return identity_slope(x, output) * x


def attention_with_constant_weights(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *given: Any, **options: Any
) -> Tensor:
    """The AH rule: attention weights are constants, so gradients reach only the values."""
    mask = None if attn_mask is None else attn_mask.detach()
    return F.scaled_dot_product_attention(query.detach(), key.detach(), value, mask, *given, **options)


def attention_with_shared_gradients(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *given: Any, **options: Any
) -> Tensor:
    """AttnLRP's attention: half of the relevance to the values, a quarter each to queries and keys.

    If only queries or only keys are activations, they get the other half. The softmax keeps its gradient; a bias that
    depends on the image, as SAM's, is added to the scores and so gets their half.
    """
    share = 0.5 / factors((query.requires_grad, key.requires_grad))
    biased = attn_mask is not None and attn_mask.requires_grad
    return F.scaled_dot_product_attention(
        ScaledGradient.apply(query, share),
        ScaledGradient.apply(key, share),
        ScaledGradient.apply(value, 0.5),
        ScaledGradient.apply(attn_mask, 0.5) if biased else attn_mask,
        *given,
        **options,
    )
