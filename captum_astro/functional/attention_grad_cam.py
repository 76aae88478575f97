"""Grad-CAM on an attention map, in the form that papers on Vision Transformers use as a baseline.

Source of Grad-CAM: Selvaraju et al., ICCV 2017 (arXiv 1610.02391), Eq. 1 and 2, with heads instead of channels::

    w_h = mean over the patches of dy/dA_h[r, j],   map_j = relu( E_h[ w_h A_h[r, j] ] )

``r`` is the row that the model classifies (that of the class token), or the weighted mean of the rows that it averages.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention, attention_gradient, widen
from captum_astro.functional.head_rows import head_rows


def attention_grad_cam(
    row: torch.Tensor,
    attention: Attention,
    gradient: torch.Tensor,
    patches: torch.Tensor,
    images: int,
    relu: bool = True,
) -> torch.Tensor:
    """The map of one layer.

    Args:
        row: The read-out over the queries, ``(B, q)``; ``B = images * groups``, as with windows, image by image.
        attention: The layer.
        gradient: ``dy/dO`` at the heads' outputs, ``(B, H, q, d_v)``.
        patches: Which keys are patch tokens, ``(groups, n)`` bool: gradients of other keys are not averaged.
        images: The number of images. A head has one weight per image, over all of its windows.
        relu: Whether negative values are set to 0, as published.

    Returns:
        ``(B, n)``.
    """
    value = widen(attention.value).contiguous()
    batch, heads, keys, _ = value.shape
    read = head_rows(row, attention, "attention")
    # dA is linear in dO, so the rows are averaged before the product
    averaged = torch.einsum("bi,bhiv->bhv", row, widen(gradient))
    slopes = attention_gradient(averaged[:, :, None], value)[:, :, 0]
    groups = slopes.reshape(images, -1, heads, keys) * patches[:, None]
    weights = groups.sum((1, 3)) / patches.sum()
    cam = (weights.repeat_interleave(batch // images, 0)[..., None] * read).mean(1)
    return cam.clamp(min=0) if relu else cam
