"""InFlow: a rollout whose two residual connections are weighted by lengths, and whose attention by gradients.

Source: Walker, Jha, Ewetz, "Explaining ViTs Using Information Flow", AISTATS 2025, as its public code computes it. With
x the tokens that enter a block, a what its attention adds, z = x + a and m what its feed-forward layer adds::

    U = rownorm( [ (E_h[ds_l/dA_h] max_h(I_h A_h))^+ diag(|a| / (|x| + |a|)) + diag(|x| / (|x| + |a|)) ] R )
    R = diag( rho |m| / (|z| + |m|) + |z| / (|z| + |m|) ),   rho = |m| / |z|, which sums to 1 over the tokens
    I_h = mean of |A_h^T dy/dA_h|, which sums to 1 over the heads
"""

from __future__ import annotations

import torch

from captum_astro.functional import attention as maths
from captum_astro.functional.attention import Attention, attention_gradient, widen


def head_importance(attention: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """The mean of ``|A_h^T dy/dA_h|`` over its entries, as shares of the heads.

    Because ``dA = dO V^T``, it is ``|(A^T dO) V^T|``.

    Args:
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``.

    Returns:
        ``(B, H)``, which sum to 1; 0 where no gradient arrives.
    """
    value = widen(attention.value).contiguous()
    batch, heads, keys, _ = value.shape
    received = torch.zeros_like(value)
    for chunk, probabilities in attention.chunks():
        received += probabilities.transpose(-2, -1) @ widen(gradient[:, :, chunk])
    total = value.new_zeros(batch, heads)
    for part in received.split(max(1, maths.CHUNK_ELEMENTS // max(1, batch * heads * keys)), 2):
        total += attention_gradient(part, value).abs_().sum((-2, -1))
    return torch.nn.functional.normalize(total, p=1, dim=1)


def residual_shares(stream: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lengths of a stream and of what is added to it, as shares of both: two ``(B, n)`` from two ``(B, n, d)``."""
    own, other = widen(stream).norm(dim=-1), widen(added).norm(dim=-1)
    return own / (own + other), other / (own + other)


def feed_forward_scale(stream: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """``R`` of a feed-forward layer: ``(B, n)`` from its stream and what it adds, both ``(B, n, d)``."""
    own, other = residual_shares(stream, added)
    return torch.nn.functional.normalize(other / own, p=1, dim=1) * other + own


def inflow_row(
    row: torch.Tensor,
    attention: Attention,
    importance: torch.Tensor,
    gradient: torch.Tensor,
    shares: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """A row times a block's whole matrix ``U``.

    Args:
        row: ``(B, n)``.
        attention: The layer.
        importance: ``I_h``, ``(B, H)``.
        gradient: ``ds_l/dO`` at the heads' outputs, ``(B, H, n, d_v)``.
        shares: The factors of the columns of the identity and of the attention, with R, two ``(B, n)``.

    Returns:
        ``(B, n)``.
    """
    value, (own, other) = widen(attention.value).contiguous(), shares
    total = torch.zeros_like(row)
    for chunk, probabilities in attention.chunks():
        slopes = attention_gradient(gradient[:, :, chunk], value).mean(1)
        update = (probabilities * importance[:, :, None, None]).amax(1).mul_(slopes).clamp_(min=0) * other[:, None]
        scaled = row[:, chunk] / (update.sum(-1) + own[:, chunk])
        total += torch.einsum("bi,bij->bj", scaled, update)
        total[:, chunk] += scaled * own[:, chunk]
    return total
