"""Transformer Attribution: attention relevance times attention gradient.

Source: Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv 2012.09838),
Eq. 13 and 14, without normalising the rows, as in its public code::

    U = I + E_h[(dy/dA * R_A)^+],   C = U_L ... U_1
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captum_astro.functional.attention import Attention, attention_gradient, widen
from captum_astro.functional.relevance_rules import divided


def transformer_attribution_update(
    row: torch.Tensor,
    attention: Attention,
    gradient: torch.Tensor,
    ruled: Attention,
    outputs: Sequence[torch.Tensor],
    relevance: Sequence[torch.Tensor],
) -> torch.Tensor:
    """A row times a layer's matrix without its identity, ``r E_h[(dy/dA * R_A)^+]``, summed over the layer's maps.

    Args:
        row: One or several, ``(B, ..., q)``.
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``.
        ruled: The same layer, recorded in the pass that propagates relevance.
        outputs: ``O`` of each map in that pass, ``(B, H, q, d_v)``.
        relevance: ``R`` at each of these outputs.

    Returns:
        ``(B, ..., n)``.
    """
    total = row.new_zeros(*row.shape[:-1], attention.value.shape[2])
    value = widen(ruled.value).contiguous()
    for part, weight, output, arrived in zip(ruled.maps, attention.weights, outputs, relevance, strict=True):
        for chunk, probabilities in Attention((part,), (1.0,), value).chunks():
            of_map = attention_relevance(probabilities, value, output[:, :, chunk], arrived[:, :, chunk])
            slopes = attention_gradient(gradient[:, :, chunk], attention.value) * weight
            total += torch.einsum("b...i,bhij->b...j", row[..., chunk], of_map.mul_(slopes).clamp_(min=0))
    return total / value.shape[1]


def attention_relevance(
    rows: torch.Tensor, value: torch.Tensor, output: torch.Tensor, relevance: torch.Tensor
) -> torch.Tensor:
    """``R_A = A (R / O) V^T / 2``: the map's half of the relevance of its product with the values.

    Args:
        rows: ``A``, some rows of a map, ``(B, H, rows, n)``; modified in place.
        value: ``V``, ``(B, H, n, d_v)``.
        output: ``O`` of these rows, ``(B, H, rows, d_v)``.
        relevance: ``R`` at the output.

    Returns:
        ``(B, H, rows, n)``.
    """
    return rows.mul_(attention_gradient(divided(relevance, output) / 2, value))
