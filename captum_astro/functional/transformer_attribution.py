"""Transformer Attribution: attention relevance times attention gradient.

Source: Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv 2012.09838),
Eq. 13 and 14, without normalising the rows, as its public code has it::

    U = I + E_h[(dy/dA * R_A)^+],   C = U_L ... U_1
"""

from __future__ import annotations

import torch


def transformer_attribution_update(row: torch.Tensor, relevance: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Some entries of a row times some rows of a layer's map without its identity.

    Args:
        row: The entries for these queries, ``(B, rows)``.
        relevance: ``R_A`` of these rows, ``(B, H, rows, n)``.
        gradient: ``dy/dA`` of these rows, the same shape.

    Returns:
        ``(B, n)``, to be summed over the chunks.
    """
    return torch.einsum("bi,bhij->bj", row, (relevance * gradient).clamp_(min=0)) / relevance.shape[1]
