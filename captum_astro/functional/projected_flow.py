"""Projected flow: how far what each token adds moves another towards the class, as a fraction of that one's length.

With everything held constant that decides *whether* something passes (attention weights, the deviations of norms, the
gates of activations), a model is linear in its tokens. Then ``A_h * dy/dA_h`` is exactly what arrives at the output
``y`` along each edge of the attention ``A_h``. With ``E'`` the tokens that leave a layer and ``g = dy/dE'``::

    U = I + sum_h (A_h * dy/dA_h)^+ / (|g| |E'|)

Entry i, j is the length of what j adds to i, projected on the direction in which ``y`` grows, over the length of i. It
has no unit, so the scale of ``y`` does not matter.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention, widen
from captum_astro.functional.transformer_mm import transformer_mm_update


def share_of_length(row: torch.Tensor, tokens: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A row divided by ``|g| |E'|`` of each token: the most that a vector of the token's length could add to ``y``.

    Args:
        row: One or several, ``(B, ..., n)``.
        tokens: ``E'``, ``(B, n, d)``.
        gradient: ``g`` at the first m tokens, ``(B, m, d)``, of any scale; the others add nothing to ``y`` here.

    Returns:
        ``(B, ..., n)``; 0 for a token without length or gradient.
    """
    gradient = widen(gradient)
    largest = gradient.abs().amax(-1)  # so that squares of small gradients do not underflow
    slope = largest * (gradient / largest.clamp_min(torch.finfo(largest.dtype).tiny)[..., None]).norm(dim=-1)
    most = slope * widen(tokens[:, : slope.shape[1]]).norm(dim=-1)
    most = torch.nn.functional.pad(most, (0, tokens.shape[1] - slope.shape[1]))
    most = most.reshape(len(most), *[1] * (row.ndim - 2), -1)
    return torch.where(most > 0, row / most, torch.zeros_like(row))


def contributing(readout: torch.Tensor, tokens: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The read-out row with each token counted by what it contributes to ``y``, ``(g . E)^+``.

    Args:
        readout: The weights of the final tokens in the classified vector, ``(B, n)``.
        tokens: ``E``, the final tokens, ``(B, n, d)``.
        gradient: ``dy/dE`` at the first m tokens, ``(B, m, d)``.

    Returns:
        ``(B, n)``, with the same sum; the read-out itself if no token contributes.
    """
    added = (widen(gradient) * widen(tokens[:, : gradient.shape[1]])).sum(-1).clamp_min(0)
    added = torch.nn.functional.pad(added, (0, tokens.shape[1] - added.shape[1])) * (readout > 0)
    return torch.where(added.any(-1, keepdim=True), shared(readout, added), readout)


def shared(row: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
    """The sum of a row, shared in proportion to terms: of a map without ``I``, whose scale would be that of ``y``.

    Args:
        row: ``(B, q)``.
        terms: ``(B, n)``, not negative.

    Returns:
        ``(B, n)``; 0 where no term is positive.
    """
    terms = terms / terms.amax(-1, keepdim=True).clamp_min(torch.finfo(terms.dtype).tiny)  # no sum underflows
    total = terms.sum(-1, keepdim=True)
    return terms * torch.where(total > 0, row.sum(-1, keepdim=True) / total, torch.zeros_like(total))


def flow_update(row: torch.Tensor, attention: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """A row times what arrives along the edges of all heads, ``r sum_h (A_h * dy/dA_h)^+``.

    Args:
        row: One or several, ``(B, ..., q)``, from `share_of_length`.
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``, with all that decides held constant.

    Returns:
        ``(B, ..., n)``.
    """
    return transformer_mm_update(row, attention, gradient) * attention.value.shape[1]
