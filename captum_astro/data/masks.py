"""Masks from image files: int8, 1 the object, 0 the background, -1 unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_astro.data.greys import is_deep
from captum_astro.data.images import load_image
from captum_astro.data.tables import DataError

_UNKNOWN = 255
_IMAGENET_S_UNKNOWN = 1000
_LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO", "WEBP")  # formats that blur, or may
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
_DARK = 64  # as the sum of the three channels


def voc_mask(path: Path) -> torch.Tensor:
    """VOC mask: each pixel is a class as a palette index; 0 background, 255 the unknown edge, all else object.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it holds colours instead of indices, or is black and white, or its palette shows another
            background, or it is transparent, or in a format that blurs.
    """
    picture = _exact(path, upright=False)
    if picture.mode not in ("P", "L"):
        raise DataError(f"{path}: {_kind(picture)}, where a palette of classes belongs.")
    shown = _shown_grey(picture)
    if shown is not None and {255} <= set(np.unique(shown).tolist()) <= {0, 128, 255}:
        raise DataError(
            f"{path}: black and white, where 255 would be VOC's unknown edge. Put such masks into a folder masks/, and "
            f"their images into images/ beside it."
        )
    return _classes(picture, path)


def imagenet_s_mask(path: Path) -> torch.Tensor:
    """ImageNet-S mask: each pixel is a class as R + 256 G; 0 is no class, 1000 unknown, all else object.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it has no colours, or a class above 1000, or it is transparent, or in a format that blurs.
    """
    picture = _exact(path, upright=False)
    if picture.mode != "RGB":
        raise DataError(f"{path}: mode {picture.mode}, where ImageNet-S has RGB, a class being R + 256 G.")
    colours = np.asarray(picture).astype(np.int64)
    classes = colours[..., 0] + 256 * colours[..., 1]
    if classes.max() > _IMAGENET_S_UNKNOWN:
        raise DataError(f"{path}: a pixel of class {classes.max()}; a class is R + 256 G, and 1000 is unknown.")
    return _known(classes, _IMAGENET_S_UNKNOWN)


def plain_mask(path: Path) -> torch.Tensor:
    """Black and white mask: black background, white (or 1) object, 128 unknown; with a palette as in VOC.

    A palette of greys counts as the greys that it shows; any other as classes, of which only 0 is shown black.

    Raises:
        ImageError: If the file is damaged.
        DataError: If it has other values, as antialiased masks do, or its palette shows another background than its
            classes, or it is transparent, or in a format that blurs.
    """
    picture = _exact(path, upright=True)
    values = _shown_grey(picture)
    if values is None and picture.mode == "P":
        return _classes(picture, path)
    if values is None:
        raise DataError(f"{path}: {_kind(picture)}, where a mask is black and white or has a palette.")
    there = set(np.unique(values).tolist())
    if not (there <= {0, 1} or there <= {0, 128, 255}):
        raise DataError(
            f"{path}: pixels of {', '.join(str(value) for value in sorted(there)[:6])}; 0 is the background, 255 the "
            f"object and 128 unknown, or 0 and 1, or a coloured palette of classes with 255 unknown."
        )
    if picture.mode == "P" and 128 in there and 255 not in there:
        raise DataError(
            f"{path}: a palette that shows 128, but no 255: is that an unknown part or the object? Save the mask in "
            f"black and white."
        )
    return torch.from_numpy(np.where(values == 128, -1, values > 0).astype(np.int8))


def _exact(path: Path, *, upright: bool) -> Image.Image:
    """A mask in its stored mode, if its pixels are those that were written, and each says object or background."""
    picture = load_image(path, upright=upright)
    packed = str(picture.info.get("compression"))  # of a TIFF
    if picture.format in _LOSSY or packed in _LOSSY_IN_TIFF:
        form = picture.format if picture.format in _LOSSY else f"a TIFF with {packed} in it"
        raise DataError(f"{path}: {form}, which blurs or moves the edges of a mask. Save it in PNG.")
    if picture.has_transparency_data and not is_deep(picture):
        clear = int((np.asarray(picture.convert("RGBA"))[..., 3] < 255).sum())
        if clear:
            raise DataError(
                f"{path}: {clear} pixels are transparent, which says neither object nor background. Save the mask "
                f"without transparency."
            )
    return picture


def _shown_grey(picture: Image.Image) -> np.ndarray | None:
    """The pixels as displayed, ``(H, W)`` of 8 bits; None if they have colours or more bits, or the palette has."""
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    if picture.mode not in ("P", "RGB", "RGBA", "LA"):
        return None
    colours = np.asarray(picture.convert("RGB"))
    looked = _palette(picture) if picture.mode == "P" else colours
    return None if (looked != looked[..., :1]).any() else colours[..., 0]


def _classes(picture: Image.Image, path: Path) -> torch.Tensor:
    """Indices of a palette as classes, if it shows the background black and no other class.

    A program that makes a palette itself orders the colours freely, and then an index is no class.
    """
    classes = np.asarray(picture)
    if picture.mode == "P" and picture.format == "GIF":
        raise DataError(f"{path}: a GIF, in which programs renumber the classes. Save the mask in PNG.")
    if picture.mode == "P":
        shown = _palette(picture).sum(1, dtype=int)
        used = np.setdiff1d(classes, (0, _UNKNOWN))
        black = used[shown[used] <= shown[0]]
        if shown[0] > _DARK or black.size:
            what = f"class {black[0]} as dark as class 0" if black.size else "class 0 in a colour"
            raise DataError(
                f"{path}: the palette shows {what}, the background: its indices are no classes. Save the mask in black "
                f"and white."
            )
    return _known(classes, _UNKNOWN)


def _palette(picture: Image.Image) -> np.ndarray:
    """``(256, 3)``; missing colours are black."""
    given = (picture.getpalette("RGB") or [])[:768]
    return np.array(given + [0] * (768 - len(given)), np.uint8).reshape(256, 3)


def _kind(picture: Image.Image) -> str:
    return f"{'greys of more than 8 bits' if is_deep(picture) else 'colours'} ({picture.mode})"


def _known(classes: np.ndarray, unknown: int) -> torch.Tensor:
    return torch.from_numpy(np.where(classes == unknown, -1, classes > 0).astype(np.int8))
