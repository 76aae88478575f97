"""A control: that people look at the middle of a photograph, whatever is in it."""

from __future__ import annotations

import torch

WIDTHS = (0.1, 0.2, 0.3, 0.4)


def centred(size: int, width: float) -> torch.Tensor:
    """A Gaussian at the centre of the image, as a map.

    Its order of pixels does not depend on its width, so only SSIM does.

    Args:
        size: Side length in pixels.
        width: Standard deviation as a fraction of the side length, above 0.

    Returns:
        ``(size, size)`` in float64, at most 1.

    Raises:
        ValueError: If the width is not above 0.

    Example:
        >>> centred(3, 1 / 3)[1]
        tensor([0.6065, 1.0000, 0.6065], dtype=torch.float64)
    """
    if not width > 0:
        raise ValueError(f"width: a fraction of the side length, above 0, is needed, not {width!r}.")
    away = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (width * size)
    return torch.exp(-(away[:, None] ** 2 + away[None] ** 2) / 2)
