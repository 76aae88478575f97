"""A control: that a map agrees better with people only because it is smoother."""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter

WIDTHS = (0.02, 0.05, 0.1, 0.2)


def blurred(maps: torch.Tensor, width: float) -> torch.Tensor:
    """Maps after a Gaussian blur; beyond its edge a map is mirrored, so that its sum stays.

    Args:
        maps: ``(B, H, W)``.
        width: Standard deviation as a fraction of W, above 0.

    Returns:
        The same shape, in float64 on the CPU.

    Raises:
        ValueError: If the width is not above 0.

    Example:
        >>> point = torch.zeros(1, 9, 9)
        >>> point[0, 4, 4] = 1
        >>> soft = blurred(point, width=1 / 9)
        >>> round(float(soft.sum()), 6), bool(soft.max() < 0.2)
        (1.0, True)
    """
    if not width > 0:
        raise ValueError(f"width: a fraction of the side length, above 0, is needed, not {width!r}.")
    values = maps.detach().double().cpu().numpy()
    return torch.from_numpy(gaussian_filter(values, width * maps.shape[-1], axes=(1, 2)))
