"""Masks from image files: int8, 1 the object, 0 the background, -1 unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_astro.data.images import load_image
from captum_astro.data.tables import DataError

_UNKNOWN = 255
_IMAGENET_S_UNKNOWN = 1000


def voc_mask(path: Path) -> torch.Tensor:
    """VOC mask: each pixel is a class as a palette index; 0 background, 255 the unknown edge, all else object.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it holds colours instead of indices.
    """
    picture = load_image(path, upright=False)
    if picture.mode not in ("P", "L"):
        raise DataError(f"{path}: colours ({picture.mode}), where a palette of classes belongs.")
    return _known(np.asarray(picture), _UNKNOWN)


def imagenet_s_mask(path: Path) -> torch.Tensor:
    """ImageNet-S mask: each pixel is a class as R + 256 G; 0 is no class, 1000 unknown, all else object.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it has no colours, or a class above 1000.
    """
    picture = load_image(path, upright=False)
    if picture.mode != "RGB":
        raise DataError(f"{path}: mode {picture.mode}, where ImageNet-S has RGB, a class being R + 256 G.")
    colours = np.asarray(picture).astype(np.int64)
    classes = colours[..., 0] + 256 * colours[..., 1]
    if classes.max() > _IMAGENET_S_UNKNOWN:
        raise DataError(f"{path}: a pixel of class {classes.max()}; a class is R + 256 G, and 1000 is unknown.")
    return _known(classes, _IMAGENET_S_UNKNOWN)


def plain_mask(path: Path) -> torch.Tensor:
    """Black and white mask: black background, white (or 1) object, 128 unknown; with a palette as in VOC.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it has other values, as antialiased or JPEG-compressed masks do.
    """
    picture = load_image(path, upright=True)
    if picture.mode == "P":
        return _known(np.asarray(picture), _UNKNOWN)
    values = _grey(picture, path)
    there = set(np.unique(values).tolist())
    if not (there <= {0, 1} or there <= {0, 128, 255}):
        raise DataError(
            f"{path}: pixels of {', '.join(str(value) for value in sorted(there)[:6])}; 0 is the background, 255 the "
            f"object and 128 unknown, or 0 and 1, or a palette of classes with 255 unknown."
        )
    return torch.from_numpy(np.where(values == 128, -1, values > 0).astype(np.int8))


def _grey(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    colours = np.asarray(picture.convert("RGB"))
    if picture.mode not in ("RGB", "RGBA", "LA") or (colours != colours[..., :1]).any():
        raise DataError(f"{path}: colours ({picture.mode}), where a mask is black and white or has a palette.")
    return np.asarray(colours[..., 0])


def _known(classes: np.ndarray, unknown: int) -> torch.Tensor:
    return torch.from_numpy(np.where(classes == unknown, -1, classes > 0).astype(np.int8))
