"""Images as Matplotlib shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Shown = torch.Tensor | Image.Image
_ROUNDING = 1e-3  # of an image's values beyond [0, 1]


def displayable(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Undo a model's normalisation: ``(B, C, H, W)`` in [0, 1]."""
    shape = (1, -1, 1, 1)
    return (images * images.new_tensor(std).reshape(shape) + images.new_tensor(mean).reshape(shape)).clamp(0, 1)


def picture(image: Shown, bands: Sequence[int] | None = None) -> NDArray[np.float32 | np.uint8]:
    """An image as ``(H, W, 3)``.

    Args:
        image: A PIL image, or a tensor ``(C, H, W)`` in [0, 1].
        bands: The channels shown as red, green and blue, or one that is shown in grey. Needed for a tensor of other
            than one or three channels: nobody knows which are red, green and blue.

    Raises:
        ValueError: If the image has another form or no such bands, or values outside [0, 1].

    Example:
        >>> picture(torch.rand(13, 8, 8), bands=(3, 2, 1)).shape
        (8, 8, 3)
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if bands is not None and image.ndim == 3:
        image = image[_checked(bands, len(image))]
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(
            f"The image must be (3, H, W) or (1, H, W), not {tuple(image.shape)}: choose the bands to be shown, as in "
            f"bands=(2, 1, 0)."
        )
    values = image.detach().float().cpu().numpy()
    low, high = float(values.min()), float(values.max())
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # NaN fails too
        raise ValueError(
            f"The image has values from {low:g} to {high:g}, which are not in [0, 1]: divide bytes by 255, and undo a "
            f"model's normalisation with displayable."
        )
    return np.broadcast_to(values.clip(0, 1).transpose(1, 2, 0), (*values.shape[1:], 3))


def _checked(bands: Sequence[int], channels: int) -> list[int]:
    chosen = list(bands)
    if len(chosen) not in (1, 3) or not all(isinstance(band, int) and 0 <= band < channels for band in chosen):
        raise ValueError(f"bands must be one or three numbers from 0 to {channels - 1}, not {bands!r}.")
    return chosen
