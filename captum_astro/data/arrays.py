"""Images and maps from the arrays and bytes in which datasets store them."""

from __future__ import annotations

import math

import numpy as np
import torch

from captum_astro.data.images import open_encoded


def decoded(data: bytes, channels: int) -> np.ndarray:
    """Decode an image from bytes: a JPEG or PNG, or raw little-endian float32 of a square ``(side, side, channels)``.

    EXIF rotation is not applied: the map belongs to the pixels as they are stored.

    Args:
        data: The bytes.
        channels: 3 for a colour image, 1 for a map.

    Raises:
        ValueError: If the bytes are neither of the two, or the image is damaged.
    """
    jpeg = data[:3] == b"\xff\xd8\xff" and data[3:4] >= b"\xc0"  # as a float32 this would be negative
    if jpeg or data[:4] == b"\x89PNG":
        picture = open_encoded(data, f"a picture of {len(data)} bytes")
        return np.asarray(picture if channels == 3 else picture.convert("L"))
    side = math.isqrt(len(data) // (4 * channels))
    if not data or len(data) != 4 * channels * side**2:
        raise ValueError(f"{len(data)} bytes are not a JPEG or PNG, nor {channels} x side x side numbers of float32")
    return np.frombuffer(data, "<f4").reshape(side, side, channels)


def as_image(values: np.ndarray) -> torch.Tensor:
    """Pixels as ``(3, H, W)`` uint8, from ``(H, W, 3)`` or ``(3, H, W)`` in 0 to 255; floats are rounded.

    Raises:
        ValueError: If the shape is different, or the values are not in 0 to 255.
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
        ValueError: If the shape is different, or a value is negative or not a number.
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
