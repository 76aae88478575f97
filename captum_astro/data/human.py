"""Where people looked: one sample of human attention, and the preparation of its map for a comparison."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

_COARSE = 64
_SIGMA = 10.0
_BEFORE, _AFTER = 4, 5


class HumanSample(NamedTuple):
    """One image with the map of where people looked.

    ``image`` is ``(3, H, W)`` uint8. ``human`` is ``(h, w)`` float32, at least 0, as read: its scale is the dataset's
    own, and so is its size, which is most often that of the image. ``label`` is the class, or None where none is
    given. ``name`` says where the sample came from and is unique within its dataset.
    """

    image: torch.Tensor
    human: torch.Tensor
    label: int | None
    name: str


def prepare_heatmap(human: torch.Tensor, size: int = 224) -> torch.Tensor:
    """Blur human maps as the Harmonization benchmark does before it compares them.

    The map is brought to 64 x 64, blurred with a 10 x 10 Gaussian of sigma 10, and brought to ``size``. Both resizings
    are bilinear with half-pixel centres and without antialiasing, and outside the map there is zero. The kernel is
    even, so it has no middle: each pixel gathers from 4 before to 5 after it, which moves the map by half a pixel of
    the 64 (1.75 pixels of 224) up and to the left. The benchmark's published numbers contain this, so it is kept.

    Args:
        human: ``(h, w)`` or ``(B, h, w)`` of any size and any scale; integers become float32.
        size: Side of the result, in pixels.

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
        raise ValueError(f"A human map is (h, w) or (B, h, w) and has pixels, not {tuple(human.shape)}.")
    if size < 1:
        raise ValueError(f"size is at least 1, not {size}.")
    maps = human if human.is_floating_point() else human.float()
    maps = maps.reshape(-1, 1, *human.shape[-2:])
    coarse = F.pad(_resized(maps, _COARSE), (_BEFORE, _AFTER, _BEFORE, _AFTER))
    blurred = F.conv2d(coarse, _kernel().to(maps)[None, None])
    return _resized(blurred, size).reshape(*human.shape[:-2], size, size)


def decoded(data: bytes, channels: int) -> np.ndarray:
    """A picture from its bytes: a JPEG or PNG, or raw little-endian float32 of a square ``(side, side, channels)``.

    The camera's rotation is not applied: the map belongs to the pixels as they are stored.

    Args:
        data: The bytes.
        channels: 3 for a picture in colour, 1 for a map.

    Raises:
        ValueError: If the bytes are neither of the two, or the picture is damaged.
    """
    jpeg = data[:3] == b"\xff\xd8\xff" and data[3:4] >= b"\xc0"  # as a float32 this would be negative
    if jpeg or data[:4] == b"\x89PNG":
        try:
            with Image.open(io.BytesIO(data)) as picture:
                return np.asarray(picture.convert("RGB" if channels == 3 else "L"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"a picture of {len(data)} bytes is damaged ({error})") from error
    side = math.isqrt(len(data) // (4 * channels))
    if not data or len(data) != 4 * channels * side**2:
        raise ValueError(f"{len(data)} bytes are not a JPEG or PNG, nor {channels} x side x side numbers of float32")
    return np.frombuffer(data, "<f4").reshape(side, side, channels)


def as_image(values: np.ndarray) -> torch.Tensor:
    """Pixels as ``(3, H, W)`` uint8, from ``(H, W, 3)`` or ``(3, H, W)`` in 0 to 255; floats are rounded.

    Raises:
        ValueError: If the shape is another, or the values are not in 0 to 255.
    """
    if values.ndim != 3 or 3 not in (values.shape[0], values.shape[-1]) or values.size == 0:
        raise ValueError(f"the image is (H, W, 3) or (3, H, W), not {values.shape}")
    if values.dtype != np.uint8:
        low, high = _range(values, "image")
        if low < -1 or high > 256 or 0 < high <= 1:
            raise ValueError(f"the image's values are in 0 to 255, not {low:g} to {high:g}")
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if values.shape[-1] == 3:
        values = values.transpose(2, 0, 1)
    return torch.from_numpy(np.array(values, order="C"))


def as_human(values: np.ndarray) -> torch.Tensor:
    """A map as ``(h, w)`` float32, from ``(h, w)``, ``(h, w, 1)`` or ``(1, h, w)``; uint8 is divided by 255.

    Raises:
        ValueError: If the shape is another, or a value is negative or not a number.
    """
    shape = values.shape
    if values.ndim == 3 and shape[-1] == 1:
        values = values[..., 0]
    elif values.ndim == 3 and shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"the heatmap is (h, w), (h, w, 1) or (1, h, w), not {shape}")
    if values.dtype == np.uint8:
        return torch.from_numpy(values.astype(np.float32) / 255)
    low, high = _range(values, "heatmap")
    if low < -1e-6 * max(1.0, high):
        raise ValueError(f"the heatmap's values are at least 0, not {low:g}")
    return torch.from_numpy(np.array(np.maximum(values, 0), dtype=np.float32, order="C"))


def _range(values: np.ndarray, what: str) -> tuple[float, float]:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"the {what} is made of numbers, not {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"the {what} has values that are not finite")
    return low, high


def _resized(maps: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False, antialias=False)


def _kernel() -> torch.Tensor:
    """``(10, 10)``: x runs from -5 to 4 along a row, y from 4 to -5 down a column."""
    x = torch.arange(-5, 5, dtype=torch.float64)
    y = torch.arange(4, -6, -1, dtype=torch.float64)
    kernel = torch.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * _SIGMA**2))
    return kernel / kernel.sum()
