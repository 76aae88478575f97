"""AGCAM: positive gradients at the attention maps, weighted by the sigmoid of the attention scores.

Source: Leem, Seo, "Attention Guided CAM: Visual Explanations of Vision Transformer Guided by Self-Attention", AAAI
2024 (arXiv 2402.04563), Eq. 7 to 9::

    map_j = sum over layers and heads of relu(dy/dA_h[r, j]) sigmoid(Z_h[r, j])

with ``Z = scale Q K^T`` the scores before the softmax, ``A = softmax(Z)``, and ``r`` the row that the model classifies.
"""

from __future__ import annotations

import torch

from captum_astro.functional import attention as maths
from captum_astro.functional.attention import Attention, attention_gradient, widen


def agcam_map(row: torch.Tensor, attention: Attention, gradient: torch.Tensor, read: range) -> torch.Tensor:
    """``sum over the heads of r relu(dy/dA) sigmoid(Z)``. Each softmax of differential attention is a head.

    Args:
        row: Weights of the queries, ``(B, q)``.
        attention: The layer, whose scores are known.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``.
        read: The queries of which some have a weight; the others cost nothing.

    Returns:
        ``(B, n)``.
    """
    value = widen(attention.value).contiguous()
    batch, heads, keys, _ = value.shape
    total = row.new_zeros(batch, keys)
    step = max(1, maths.CHUNK_ELEMENTS // max(1, batch * heads * keys))
    for start in range(read.start, read.stop, step):
        stop = min(start + step, read.stop)
        slopes = attention_gradient(gradient[:, :, start:stop], value)
        for part, weight in zip(attention.maps, attention.weights, strict=True):
            scores = part.scores(start, stop)
            assert scores is not None
            cam = (weight * slopes).clamp_(min=0) * scores.sigmoid_()
            total += torch.einsum("bi,bhij->bj", row[:, start:stop], cam)
    return total
