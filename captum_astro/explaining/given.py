"""Images as a user gives them: files, PIL images, or tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from captum_astro.data.images import in_rgb, open_image
from captum_astro.data.view import Crop, View
from captum_astro.viz.images import displayable, picture

_BORDERS = (2, 98)  # percentiles of a band that are shown as black and white


@dataclass(frozen=True, eq=False)
class Given:
    """One image.

    Attributes:
        x: The model's input, ``(1, C, H, W)``.
        image: The whole image, as it is shown.
        crop: The part of it that the model sees.
        file: The file it was read from; None if it was not.
    """

    x: torch.Tensor
    image: Image.Image
    crop: Crop
    file: str | None = None


def several(images: Any) -> list[Any] | None:
    """The images of a list, or of a batch ``(B, C, H, W)``; None for a single image.

    Raises:
        ValueError: If there are none.
    """
    batch = isinstance(images, torch.Tensor) and images.ndim == 4
    if not (batch or isinstance(images, list | tuple)):
        return None
    if not len(images):
        raise ValueError("There is no image to explain.")
    return list(images)


def given(image: Any, view: View, bands: Sequence[int] | None = None) -> Given:
    """One image, prepared for a model.

    Args:
        image: As in `captum_astro.explain`.
        view: The model's preprocessing.
        bands: The channels of a tensor that are shown.

    Raises:
        ImageError: If a file cannot be read.
        TypeError: If it is none of these.
        ValueError: If a tensor has another shape.
    """
    if isinstance(image, str | os.PathLike):
        return _fitted(open_image(Path(image)), view, os.fspath(image))
    if isinstance(image, Image.Image):
        return _fitted(in_rgb(ImageOps.exif_transpose(image), "The image"), view)
    if not isinstance(image, torch.Tensor):
        raise TypeError(
            f"An image must be a file, a PIL image or a tensor, not {type(image).__name__}: of an array make one with "
            f"PIL.Image.fromarray(array)."
        )
    if image.ndim != 3 or not image.numel():
        raise ValueError(f"A tensor must be (C, H, W), or (B, C, H, W) for several images, not {tuple(image.shape)}.")
    if image.dtype == torch.uint8:
        return _fitted(_of_bytes(image), view)
    if not torch.isfinite(image).all():
        raise ValueError("The tensor contains NaN or infinite values.")
    height, width = image.shape[1:]
    return Given(image[None], _of_input(image, view, bands), Crop(view.fit, (0, 0, width, height), (width, height)))


def _fitted(image: Image.Image, view: View, file: str | None = None) -> Given:
    x, crop = view(image)
    return Given(x[None], image, crop, file)


def _of_bytes(image: torch.Tensor) -> Image.Image:
    if len(image) not in (1, 3):
        raise ValueError(f"A tensor of bytes must be (3, H, W) or (1, H, W), not {tuple(image.shape)}.")
    return Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy())


def _of_input(x: torch.Tensor, view: View, bands: Sequence[int] | None) -> Image.Image:
    """What a model's input ``(C, H, W)`` shows; of bands that are not three, the mean unless some are chosen."""
    values = x.detach().float().cpu()
    if len(values) == len(view.mean):
        pixels = displayable(values[None], view.mean, view.std)[0]
    else:
        low, high = np.nanpercentile(values.numpy(), _BORDERS, axis=(1, 2), keepdims=True)
        pixels = ((values - torch.from_numpy(low)) / torch.from_numpy(high - low).clamp(min=1e-12)).clamp(0, 1).float()
    mean = bands is None and len(pixels) not in (1, 3)
    shown = pixels.mean(0, keepdim=True) if mean else pixels
    image = Image.fromarray((picture(shown, bands) * 255).round().astype(np.uint8))
    if mean:
        image.info["bands"] = f"mean of {len(pixels)} bands"
    elif bands is not None:
        image.info["bands"] = f"band{'s' if len(bands) > 1 else ''} {', '.join(map(str, bands))}"
    return image
