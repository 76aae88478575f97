"""Raw attention and attention rollout: maps from attention weights only, the same for every class.

Source of rollout: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928), Eq. 1::

    U = rownorm(I + E_h[A]),   C = U_L ... U_1

Attention rows sum to 1, so this is the form with halves, ``0.5 I + 0.5 E_h[A]``; otherwise (differential attention) the
rows are divided by their sums.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention


def mixed_row(row: torch.Tensor, attention: Attention) -> torch.Tensor:
    """A row times the mean map of a layer, ``r E_h[A]``.

    Args:
        row: Weights of the queries, one or several rows ``(B, ..., q)``.
        attention: The layer.

    Returns:
        ``(B, ..., n)``.
    """
    total = row.new_zeros(*row.shape[:-1], attention.value.shape[2])
    for chunk, probabilities in attention.chunks():
        total += torch.einsum("b...i,bhij->b...j", row[..., chunk], probabilities)
    return total / attention.value.shape[1]
