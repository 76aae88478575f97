"""Image files as RGB, whatever their mode."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageError(ValueError):
    """A file that cannot be opened as an image."""


def read_pixels(path: Path | str, *, upright: bool = True) -> torch.Tensor:
    """The pixels of `open_image`: ``(3, H, W)`` uint8."""
    return torch.from_numpy(np.array(open_image(path, upright=upright))).permute(2, 0, 1).contiguous()


def open_image(path: Path | str, *, upright: bool = True) -> Image.Image:
    """Open an image as it is displayed, in RGB.

    EXIF rotation is applied, transparency becomes white, 16-bit and float greys are converted to 8 bits, palettes and
    CMYK are converted. Of several frames the first is used.

    Args:
        path: The file.
        upright: Apply EXIF rotation. ImageNet's published results use the pixels as stored, without it.

    Returns:
        An RGB image.

    Raises:
        ImageError: If there is no such file, or it is not an image, or it is cut short. The message names it.
    """
    image = load_image(path, upright=upright)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def load_image(path: Path | str, *, upright: bool) -> Image.Image:
    """Open a file in its stored mode, with or without EXIF rotation.

    Raises:
        ImageError: As `open_image`.
    """
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file) if upright else file.copy()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: this is a folder.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: the image is damaged or cut short ({error}).") from error


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and the images inside the folders, in order of name.

    Raises:
        ImageError: If a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not inside:
            raise ImageError(f"{path}: no image in this folder (looked for {', '.join(sorted(SUFFIXES))}).")
        found += inside
    return found


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits span 0 to 65535, of 32 bits 0 to 255 if they fit; floats 0 to 1, or to their largest."""
    values = np.asarray(image, dtype=np.float64)
    largest = float(values.max(initial=0))
    if image.mode == "F":
        top = max(1.0, largest)
    elif image.mode == "I":
        top = 255.0 if largest <= 255 else max(65535.0, largest)
    else:
        top = 65535.0
    return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
