"""GMAR: attention rollout whose heads count by the size of their gradient.

Source: Jo et al., "GMAR: Gradient-Driven Multi-Head Attention Rollout for Vision Transformer Interpretability", 2025
(arXiv 2504.19414)::

    w_h = |dy/dA_h| / sum over the heads,   U = rownorm(I + sum over the heads of w_h A_h),   C = U_L ... U_1

with the sum of the absolute values (L1), or the root of the sum of squares (L2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from captum_astro.functional.attention import Attention, widen
from captum_astro.functional.head_rows import head_rows


def head_weights(
    attention: Attention, gradient: torch.Tensor, images: int, power: int = 1, present: torch.Tensor | None = None
) -> torch.Tensor:
    """The size of each head's gradient, as shares of the heads; entries where attention is forbidden do not count.

    Args:
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``; ``B = images * groups``, as with windows.
        images: The number of images. A head has one weight per image, over all of its windows.
        power: 1 for L1, 2 for L2.
        present: Which keys are no padding, ``(groups, n)`` bool; all by default.

    Returns:
        ``(B, H)``, which sum to 1 over the heads; 0 where no gradient arrives.
    """
    batch, heads = attention.value.shape[:2]
    every = widen(gradient).new_ones(batch, attention.queries)
    total = head_rows(every, attention, "size" if power == 1 else "square", gradient)
    if present is not None:
        total = total * present.repeat(batch // len(present), 1)[:, None]
    sizes = total.sum(-1).reshape(images, -1, heads).sum(1) ** (1 / power)
    return F.normalize(sizes, p=1, dim=1).repeat_interleave(batch // images, 0)
