"""Transformer-MM: attention weighted by its gradient, through every layer.

Source: Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers", ICCV 2021 (arXiv 2103.15679), Eq. 5 and 6::

    U = I + E_h[(dy/dA * A)^+],   C = U_L ... U_1
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention, attention_gradient, widen
from captum_astro.functional.head_rows import head_rows


def transformer_mm_update(row: torch.Tensor, attention: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """A row times a layer's matrix without its identity, ``r E_h[(dy/dA * A)^+]``.

    Args:
        row: One or several, ``(B, ..., q)``.
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``.

    Returns:
        ``(B, ..., n)``.
    """
    if row.ndim == 2:
        return head_rows(row, attention, "flow", gradient).mean(1)
    value = widen(attention.value).contiguous()
    total = row.new_zeros(*row.shape[:-1], value.shape[2])
    for chunk, probabilities in attention.chunks():
        update = attention_gradient(gradient[:, :, chunk], value).mul_(probabilities).clamp_(min=0)
        total += torch.einsum("b...i,bij->b...j", row[..., chunk], update.sum(1))
    return total / value.shape[1]
