"""The first form of the relevance rules for Vision Transformers, in which positive and negative values are apart.

Source: the older of the two rule sets (``layers_lrp``) in the public code of Chefer, Gur, Wolf, "Transformer
Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv 2012.09838): the "LRP" that later papers compare
with. All other rules are those of `captum_astro.functional.relevance_rules`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_astro.functional.relevance_rules import divided, kept
from captum_astro.functional.z_plus import LinearZPlus


class LinearBySign(LinearZPlus):
    """A linear map or convolution, each sign of its input with a sum of its own.

    ``R_i = sum_j (x_i^+ w_ij^+ / sum_i' x_i'^+ w_i'j^+ + x_i^- w_ij^- / sum_i' x_i'^- w_i'j^-) R_j``, without a term
    whose sum is 0: a neuron to which both signs contribute passes its relevance on twice.
    """

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        """Relevance of ``x``."""
        x, weight, _ = ctx.saved_tensors
        back = torch.zeros_like(x)
        for sign in (1, -1):
            part, strength = (sign * x).clamp(min=0), (sign * weight).clamp(min=0)
            back += part * ctx.back(divided(relevance[0], ctx.product(part, strength)), strength)
        return back, None, None, None, None, None


class ProportionalAdd(torch.autograd.Function):
    """``a + b``: ``R_a = a / (a + b) R``, without a normalisation over the image."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """The shapes must broadcast."""
        ctx.save_for_backward(kept(a), kept(b))
        return a + b

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        """Relevance of ``a`` and ``b``."""
        a, b = ctx.saved_tensors
        share = divided(relevance[0], a + b)
        return (a * share).sum_to_size(a.shape), (b * share).sum_to_size(b.shape)
