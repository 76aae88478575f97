"""LeGrad: the positive gradient of each layer's own class score at its attention map.

Source: Bousselham, Boggust, Chaybouti, Strobelt, Kuehne, "LeGrad: An Explainability Method for Vision Transformers via
Feature Formation Sensitivity", ICCV 2025 (arXiv 2404.03214)::

    map_j = sum over the layers of the mean over heads and queries of (ds_l/dA_l)^+

with ``s_l`` the class score of layer l's tokens.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention, attention_gradient, forbidden, widen
from captum_astro.functional.fused import fused_rows


def legrad_map(row: torch.Tensor, attention: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """``r E_h[(ds/dA)^+]``; a key that a query may not attend to gets nothing from it.

    Args:
        row: Weights of the queries, ``(B, q)``.
        attention: The layer.
        gradient: ``ds/dO`` at the heads' outputs, ``(B, H, q, d_v)``.

    Returns:
        ``(B, n)``.
    """
    if (found := fused_rows(row, attention, "rise", gradient)) is not None:
        return found.mean(1)
    value = widen(attention.value).contiguous()
    total = row.new_zeros(len(row), value.shape[2])
    for chunk, probabilities in attention.chunks():
        slopes = attention_gradient(gradient[:, :, chunk], value).clamp_(min=0)
        slopes.masked_fill_(forbidden(probabilities), 0)
        total += torch.einsum("bi,bhij->bj", row[:, chunk], slopes)
    return total / value.shape[1]
