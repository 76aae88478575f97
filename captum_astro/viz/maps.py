"""Maps as they are drawn: one value per pixel, or per patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

Patch = int | tuple[int, int]

_ACROSS = 14  # patches along the short side, as in a ViT of 16 x 16 pixels at 224


def pixel_map(attributions: torch.Tensor) -> torch.Tensor:
    """The attribution per pixel: the sum over the channels.

    Args:
        attributions: ``(B, C, H, W)``, or ``(B, H, W)``, which is returned unchanged.

    Returns:
        ``(B, H, W)``.
    """
    return attributions.sum(1) if attributions.ndim == 4 else attributions


def pooled(attributions: torch.Tensor, patch: Patch) -> torch.Tensor:
    """The attribution per patch: the sum over its pixels and channels, which keeps the total.

    Args:
        attributions: ``(B, C, H, W)`` or ``(B, H, W)``.
        patch: The side of a patch in pixels, or its height and width. At the right and at the bottom a patch may be
            smaller.

    Returns:
        ``(B, rows, columns)``.

    Raises:
        ValueError: If the side is not a positive whole number.

    Example:
        >>> pooled(torch.ones(1, 3, 4, 6), patch=2).tolist()
        [[[12.0, 12.0, 12.0], [12.0, 12.0, 12.0]]]
    """
    sides = patch if isinstance(patch, tuple) else (patch, patch)
    if not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"A patch must have at least one pixel on each side, not {patch!r}.")
    maps = pixel_map(attributions)[:, None]
    return F.avg_pool2d(maps, sides, ceil_mode=True, divisor_override=1)[:, 0]


def smoothed(attribution: torch.Tensor, patch: Patch | None) -> torch.Tensor:
    """A map ``(H, W)`` pooled to patches and enlarged again, bilinearly, as token maps are.

    Relevance that is propagated to the pixels changes its sign from one pixel to the next: drawn pixel by pixel it
    is nearly blank.

    Args:
        attribution: The map.
        patch: The side of a patch in pixels; 1 changes nothing. By default a 14th of the map's short side.
    """
    side = max(1, min(attribution.shape) // _ACROSS) if patch is None else patch
    if side in (1, (1, 1)):
        return attribution
    return F.interpolate(pooled(attribution[None], side)[None], attribution.shape, mode="bilinear")[0, 0]
