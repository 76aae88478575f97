"""Raw attention and attention rollout: maps from attention weights only, the same for every class.

Source of rollout: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928), Eq. 1::

    U = rownorm(I + E_h[A]),   C = U_L ... U_1

Attention rows sum to 1, so this is the form with halves, ``0.5 I + 0.5 E_h[A]``; otherwise (differential attention) the
rows are divided by their sums.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention
from captum_astro.functional.head_rows import head_rows


def mixed_row(row: torch.Tensor, attention: Attention, weights: torch.Tensor | None = None) -> torch.Tensor:
    """A row times the weighted sum of a layer's maps, ``r sum over the heads of w_h A_h``.

    Args:
        row: Weights of the queries, one or several rows ``(B, ..., q)``.
        attention: The layer.
        weights: ``w``, ``(B, H)``; equal by default, for the mean map.

    Returns:
        ``(B, ..., n)``.
    """
    if row.ndim == 2:
        found = head_rows(row, attention, "attention")
        return found.mean(1) if weights is None else torch.einsum("bh,bhj->bj", weights, found)
    total = row.new_zeros(*row.shape[:-1], attention.value.shape[2])
    for chunk, probabilities in attention.chunks():
        mixed = probabilities.mean(1) if weights is None else torch.einsum("bh,bhij->bij", weights, probabilities)
        total += torch.einsum("b...i,bij->b...j", row[..., chunk], mixed)
    return total


def row_sums(
    attention: Attention, weights: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor | float:
    """The row sums of the weighted sum of a layer's maps.

    Args:
        attention: The layer.
        weights: As in `mixed_row`.
        present: Which keys to include, ``(groups, n)`` bool with ``B = images * groups``; all by default.

    Returns:
        ``(B, q)``, ``(B, 1)`` if those of an image are equal, or one number for all.
    """
    if present is None and all(part.sums_to_one for part in attention.maps):
        return sum(attention.weights) * (1 if weights is None else weights.sum(1, keepdim=True))
    sums = []
    for _, rows in attention.chunks():
        if present is not None:
            rows.mul_(present.repeat(len(rows) // len(present), 1)[:, None, None])
        found = rows.sum(-1)
        sums.append(found.mean(1) if weights is None else torch.einsum("bh,bhi->bi", weights, found))
    return torch.cat(sums, 1)
