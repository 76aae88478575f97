"""In which order pixels are removed from an image, and how many of them at each level.

A map's *negative* order has its least important pixels first, its *positive* order the most important first, from 0 %
to 100 % in equal steps.
"""

from __future__ import annotations

import torch

from captum_astro.metrics._maps import finite_planes


def removed_counts(pixels: int, steps: int = 20) -> torch.Tensor:
    """The number of removed pixels at each level: ``k / steps * pixels``, rounded to the nearest, halves up.

    Args:
        pixels: Number of pixels in the image, ``H * W``.
        steps: The number of equal steps from nothing to everything.

    Returns:
        ``(steps + 1,)`` whole numbers from 0 to ``pixels``, in integer arithmetic, so exact.

    Raises:
        ValueError: If one of the two is below 1, or there are more than 32767 steps.

    Example:
        >>> removed_counts(10, steps=4)
        tensor([ 0,  3,  5,  8, 10])
    """
    if pixels < 1 or not 1 <= steps <= 32767:
        raise ValueError(f"removed_counts: pixels from 1 and steps from 1 to 32767, not {pixels!r} and {steps!r}.")
    return (2 * torch.arange(steps + 1) * pixels + steps) // (2 * steps)


def ranks(maps: torch.Tensor) -> torch.Tensor:
    """The position of every pixel in the order from least to most important.

    One order serves both curves, the positive one from its end. It is stable: of equal values, the pixel that comes
    first row by row ranks lower, so it is removed first in the negative curve and last in the positive one. A constant
    map is removed from the top left in the former and from the bottom right in the latter.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.

    Returns:
        ``(B, H * W)`` int64, each row a permutation of 0 .. H * W - 1.

    Raises:
        ValueError: If it is not a batch of maps, or a value is NaN or infinite.

    Example:
        >>> ranks(torch.tensor([[[0.5, 0.1], [0.5, 0.9]]]))
        tensor([[1, 0, 2, 3]])
    """
    values = finite_planes("maps", maps).flatten(1) + 0  # -0 becomes 0, which some sorts treat as different
    order = values.argsort(dim=1, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def removal_levels(maps: torch.Tensor, steps: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """The first level at which each pixel is removed: a mask for level k is ``levels <= k``.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        steps: The number of equal steps from nothing to everything.

    Returns:
        For the positive and for the negative curve, ``(B, H, W)`` int16, from 1 to ``steps``.

    Raises:
        ValueError: As for `ranks` and `removed_counts`.

    Example:
        >>> positive, negative = removal_levels(torch.tensor([[[0.5, 0.1], [0.6, 0.9]]]), steps=2)
        >>> positive.tolist(), negative.tolist()
        ([[[2, 2], [1, 1]]], [[[1, 1], [2, 2]]])
    """
    shape = (maps.shape[0], *maps.shape[-2:])
    order = ranks(maps)
    pixels = order.shape[1]
    first = torch.searchsorted(removed_counts(pixels, steps), torch.arange(pixels), right=True)
    first = first.to(order.device, torch.int16)
    return first.flip(0)[order].reshape(shape), first[order].reshape(shape)


def removal_masks(maps: torch.Tensor, steps: int = 20, *, most_important_first: bool) -> torch.Tensor:
    """Which pixels are removed at each level.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        steps: The number of equal steps from nothing to everything.
        most_important_first: True for the positive curve, False for the negative one.

    Returns:
        ``(B, steps + 1, H, W)`` bool; level k has ``removed_counts(H * W, steps)[k]`` pixels.

    Raises:
        ValueError: As for `ranks` and `removed_counts`.

    Example:
        >>> removal_masks(torch.tensor([[[1.0, 3.0, 2.0]]]), steps=3, most_important_first=True)[0, :, 0].int()
        tensor([[0, 0, 0],
                [0, 1, 0],
                [0, 1, 1],
                [1, 1, 1]], dtype=torch.int32)
    """
    positive, negative = removal_levels(maps, steps)
    chosen = positive if most_important_first else negative
    return chosen[:, None] <= torch.arange(steps + 1, device=chosen.device)[:, None, None]
