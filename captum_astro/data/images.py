"""Image files as RGB, whatever their mode."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from captum_astro.data import greys
from captum_astro.data.image_error import ImageError
from captum_astro.data.jpeg import scans

# only formats that Pillow decodes itself: for EPS it starts Ghostscript, which runs the file as a program
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS)
MOST_PIXELS = 2**27  # a larger photograph than any camera's; a few bytes can claim more than fits into memory
MOST_SCANS = 16  # of a JPEG of so many pixels, more of a smaller one; programs write about ten
LONGEST = 300  # as a multiple of the short side: models resize that, and the long one grows with it


def read_pixels(path: Path | str, *, upright: bool = True) -> torch.Tensor:
    """The pixels of `open_image`: ``(3, H, W)`` uint8."""
    return torch.from_numpy(np.array(open_image(path, upright=upright))).permute(2, 0, 1).contiguous()


def open_image(path: Path | str, *, upright: bool = True) -> Image.Image:
    """Open an image as it is displayed, in RGB.

    EXIF rotation is applied, transparency becomes white, palettes and CMYK are converted, and greys of 16 bits or of
    floats as in `captum_astro.data.greys.eight_bits`. Of several frames the first is used.

    Args:
        path: The file.
        upright: Apply EXIF rotation. ImageNet's published results use the pixels as stored, without it. Pillow always
            turns a TIFF.

    Returns:
        An RGB image.

    Raises:
        ImageError: If there is no such file, or it is not an image in one of `FORMATS`, or it is cut short, too large
            or too narrow, or some of its pixels have no value. The message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4), 90).save(f"{folder}/a.png")
        ...     open_image(f"{folder}/a.png").getpixel((0, 0))
        (90, 90, 90)
    """
    return in_rgb(load_image(path, upright=upright), str(path))


def open_encoded(data: object, place: str, most_pixels: int = MOST_PIXELS, *, upright: bool = False) -> Image.Image:
    """As `open_image`, from the bytes of an image file.

    Args:
        data: The bytes, such as a cell of a table.
        place: Where they come from, for the error message.
        most_pixels: More are refused before they are decoded.
        upright: Apply EXIF rotation; by default the pixels are as stored.

    Raises:
        ImageError: As `open_image`, or if they are not bytes.
    """
    return in_rgb(load_encoded(data, place, most_pixels, upright=upright), place)


def load_image(path: Path | str, *, upright: bool) -> Image.Image:
    """Open a file in its stored mode, with or without EXIF rotation.

    Raises:
        ImageError: As `open_image`.
    """
    with _opened(path) as file:
        return _loaded(file, str(path), upright)


def load_encoded(data: object, place: str, most_pixels: int = MOST_PIXELS, *, upright: bool = False) -> Image.Image:
    """As `load_image`, from the bytes of an image file.

    Raises:
        ImageError: As `open_encoded`.
    """
    if not isinstance(data, bytes):
        raise ImageError(f"{place}: no encoded image but {type(data).__name__}.")
    return _loaded(io.BytesIO(data), place, upright, most_pixels)


def check_sides(width: int, height: int, place: str) -> None:
    """Refuse a strip, which no model's resizing is made for.

    Raises:
        ImageError: If there are no pixels, or one side is more than `LONGEST` times the other.
    """
    if not 0 < max(width, height) <= LONGEST * min(width, height):
        raise ImageError(
            f"{place}: an image of {width} x {height} pixels; a side may be at most {LONGEST} times the other. Crop it."
        )


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
        inside = [path / name for name in image_names(path)]
        if not inside:
            raise ImageError(f"{path}: no image in this folder (looked for {', '.join(sorted(SUFFIXES))}).")
        found += inside
    return found


def image_names(folder: Path) -> list[str]:
    """The images of a folder by their suffix, in order of name, excluding hidden files and folders."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    return sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)


def _opened(path: Path | str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: the file cannot be opened ({error}).") from error
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path}: this is a folder.")
    raise ImageError(f"{path}: this is a pipe or a device, not a file.")  # to open a pipe would wait for its writer


def _loaded(file: BinaryIO, place: str, upright: bool, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The only place that decodes images. Of a file's name Pillow would map it into memory and not turn it."""
    try:
        with Image.open(file, formats=_installed()) as opened:
            width, height = opened.size
            if width * height > most_pixels:
                raise Image.DecompressionBombError
            if opened.format in ("JPEG", "MPO"):
                _check_scans(file, width * height, place)
            notes = greys.notes(opened)
            opened.load()
            image = ImageOps.exif_transpose(opened) if upright else opened.copy()
            image.format = opened.format  # which a copy has not
            image.info.update(notes)
            return image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{place}: not an image of a known format ({', '.join(_installed())}).") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{place}: more than {most_pixels} pixels. Make the image smaller.") from error
    except MemoryError:  # without its cause, which would be taken for the machine's fault and end a whole run
        raise ImageError(f"{place}: the image is damaged, or needs more memory than there is.") from None
    except Exception as error:  # decoders raise many kinds for damaged files
        raise ImageError(f"{place}: the image is damaged or cut short ({str(error)[:100]}).") from error


def _check_scans(file: BinaryIO, pixels: int, place: str) -> None:
    file.seek(0)  # Pillow seeks for itself
    found = scans(file.read())
    if found * pixels > MOST_SCANS * MOST_PIXELS:
        raise ImageError(f"{place}: a JPEG of {found} scans, which would take hours. Save the image again.")


@cache
def _installed() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def in_rgb(image: Image.Image, place: str) -> Image.Image:
    """An image of any mode in RGB, as `open_image` shows it.

    Args:
        image: The image.
        place: Where it comes from, for the error message.

    Raises:
        ImageError: If it is too narrow, or some of its pixels have no value.
    """
    check_sides(*image.size, place)
    try:
        return _shown(image, place)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{place}: too large for the memory there is. Make the image smaller.") from None
    except Exception as error:  # of modes that Pillow reads but does not convert
        raise ImageError(f"{place}: pixels of mode {image.mode}, which are not read. Save it in RGB.") from error


def _shown(image: Image.Image, place: str) -> Image.Image:
    greys.check_colours(image, place)
    if greys.is_deep(image):
        image = greys.eight_bits(image, place)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
