"""Human attention maps: one sample, and the preparation of its map for a comparison."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

_COARSE = 64
_SIGMA = 10.0
_BEFORE, _AFTER = 4, 5


class HumanSample(NamedTuple):
    """One image with its human attention map.

    ``image`` is ``(3, H, W)`` uint8. ``human`` is ``(h, w)`` float32, at least 0, as read: its scale is the dataset's
    own, and so is its size, which is usually that of the image. ``label`` is the class, or None if there is none.
    ``name`` identifies the sample's source and is unique within its dataset.
    """

    image: torch.Tensor
    human: torch.Tensor
    label: int | None
    name: str


def prepare_heatmap(human: torch.Tensor, size: int = 224) -> torch.Tensor:
    """Blur human attention maps as the Harmonization benchmark does before comparing them.

    The map is resized to 64 x 64, blurred with a 10 x 10 Gaussian of sigma 10, and resized to ``size``. Both resizings
    are bilinear with half-pixel centres and without antialiasing, and outside the map there is zero. The kernel size is
    even, so it has no centre: each pixel covers from 4 before to 5 after it, which shifts the map by half a pixel of
    the 64 (1.75 pixels of 224) up and to the left. The benchmark's published numbers include this, so it is kept.

    Args:
        human: ``(h, w)`` or ``(B, h, w)`` of any size and any scale; integers become float32.
        size: Side length of the result, in pixels.

    Returns:
        ``(size, size)`` or ``(B, size, size)``, on the scale of the input.

    Raises:
        ValueError: If the maps have another number of dimensions or no pixels, or ``size`` is less than 1.

    Source:
        Fel et al., "Harmonizing the object recognition strategies of deep neural networks with humans",
        NeurIPS 2022, and the loader published with it.

    Example:
        >>> human = torch.zeros(256, 256)
        >>> human[64:192, 64:192] = 1
        >>> prepared = prepare_heatmap(human)
        >>> prepared.shape, prepared.max() > 0.99, prepared[0, 0] == 0
        (torch.Size([224, 224]), tensor(True), tensor(True))
    """
    if human.dim() not in (2, 3) or human.numel() == 0:
        raise ValueError(f"A human map must be (h, w) or (B, h, w) and have pixels, not {tuple(human.shape)}.")
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}.")
    maps = human if human.is_floating_point() else human.float()
    maps = maps.reshape(-1, 1, *human.shape[-2:])
    coarse = F.pad(_resized(maps, _COARSE), (_BEFORE, _AFTER, _BEFORE, _AFTER))
    blurred = F.conv2d(coarse, _kernel().to(maps)[None, None])
    return _resized(blurred, size).reshape(*human.shape[:-2], size, size)


def _resized(maps: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False, antialias=False)


def _kernel() -> torch.Tensor:
    """``(10, 10)``: x runs from -5 to 4 along a row, y from 4 to -5 down a column."""
    x = torch.arange(-5, 5, dtype=torch.float64)
    y = torch.arange(4, -6, -1, dtype=torch.float64)
    kernel = torch.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * _SIGMA**2))
    return kernel / kernel.sum()
