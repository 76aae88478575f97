"""Greys of more than 8 bits and of floats, as scientific programs write them, in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from captum_astro.caller import warn
from captum_astro.data.image_error import ImageError

_TAGS, _DEEP = "tiff", "deep"  # keys in an image's ``info``
_PHOTOMETRIC, _SAMPLE_FORMAT, _NODATA = 262, 339, 42113
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_HUGE = 1e18  # nothing in an image is measured in such numbers
_MARKERS = (-9999.0, -99999.0, -32767.0, -32768.0)
_WAY_OUT = "Save the image in 8 bits"


def notes(opened: Image.Image) -> dict[str | tuple[int, int], Any]:
    """What an opened file, not yet loaded, says of its pixels beyond their mode: for the ``info`` of its copies."""
    stored = [str(tile[3]) for tile in getattr(opened, "tile", ())]
    found: dict[str | tuple[int, int], Any] = {
        _DEEP: any(";16" in form for form in stored),
        _TAGS: dict(getattr(opened, "tag_v2", {})),
    }
    clear = opened.info.get("transparency")
    if opened.format == "PNG" and stored and clear is not None:
        found["transparency"] = _clear(clear, stored[0])
    return found


def is_deep(image: Image.Image) -> bool:
    """Whether the image is a grey that does not fit into 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def eight_bits(image: Image.Image, place: str) -> Image.Image:
    """Convert a deep grey to 8 bits.

    Integers that reach a quarter of 0 to 65535 keep that range, and floats that reach a quarter of 0 to 1 keep that.
    Anything else is told in a warning: integers are scaled from the 8, 10, 12 or 14 bits that they need, all other
    values from their least to their largest.

    Args:
        image: In one of Pillow's modes ``I``, ``I;16`` and its variants, or ``F``.
        place: Where it comes from, for messages.

    Returns:
        The same size in mode ``L``; transparent pixels are white.

    Raises:
        ImageError: If a pixel is NaN, infinite, or marks missing data.

    Example:
        >>> eight_bits(Image.new("F", (2, 1), 0.5), "a.tif").getpixel((0, 0))
        128
    """
    tags: Mapping[int, Any] = image.info.get(_TAGS, {})
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "I" and tags and np.ravel(tags.get(_SAMPLE_FORMAT, _UNSIGNED))[0] == _UNSIGNED:
        values = np.where(values < 0, values + 2**32, values)  # Pillow holds them as signed
    clear = values == image.info.get("transparency", np.nan)
    seen = values[~clear]
    if not seen.size:
        return Image.new("L", image.size, 255)
    _refuse_gaps(seen, tags.get(_NODATA), place)
    black, white = _range(float(seen.min()), float(seen.max()), image.mode == "F", place)
    scaled = np.clip((values - black) / (white - black), 0, 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = 1 - scaled
    scaled[clear] = 1
    return Image.fromarray((scaled * 255).round().astype(np.uint8))


def check_colours(image: Image.Image, place: str) -> None:
    """Warn if a file has colours of 16 bits but uses few of them: Pillow keeps the upper 8 only."""
    if image.mode not in ("RGB", "RGBA") or not image.info.get(_DEEP):
        return
    largest = int(np.asarray(image)[..., :3].max())
    if 0 < largest < 64:
        warn(f"{place}: colours of 16 bits, of which the largest is {largest} of 255: almost black. {_WAY_OUT}.")


def _clear(clear: Any, stored: str) -> Any:
    """The transparent value of a PNG in the 8 bits of its pixels: Pillow leaves it in those of the file."""
    bits = {"L;2": 2, "L;4": 4}.get(stored)
    if bits is not None and clear < 2**bits:
        return clear * 255 // (2**bits - 1)
    if stored == "RGB;16B" and max(clear) > 255:
        return tuple(value >> 8 for value in clear)
    return clear


def _range(least: float, largest: float, floats: bool, place: str) -> tuple[float, float]:
    """The values that are shown as black and as white."""
    if floats and least >= 0 and (0.25 <= largest <= 1 or least == largest <= 1):
        return 0.0, 1.0
    if not floats and least >= 0 and (largest == 0 or 2**14 <= largest < 2**16):
        return 0.0, 2.0**16 - 1
    found = f"{place}: a grey with values from {least:g} to {largest:g}"
    bits = next((bits for bits in (8, 10, 12, 14) if 2 ** (bits - 2) <= largest < 2**bits), None)
    if not floats and least >= 0 and bits is not None:
        warn(f"{found}, read as {bits} bits: 0 is black and {2**bits - 1} white. {_WAY_OUT} for another range.")
        return 0.0, 2.0**bits - 1
    warn(f"{found}, of which the least is shown black and the largest white. {_WAY_OUT} for another range.")
    return (least, largest) if least < largest else (min(least, 0.0), max(largest, 0.0))


def _refuse_gaps(values: np.ndarray, nodata: object, place: str) -> None:
    """Refuse pixels without a value: they would be drawn as black or white, and set the range of all others."""
    least = values.min()
    gaps = ~np.isfinite(values) | (np.abs(values) >= _HUGE) | np.isclose(values, _number(nodata), rtol=1e-7)
    if not gaps.any() and least in _MARKERS and not ((values > least) & (values < least / 2)).any():
        gaps = values == least
    if gaps.any():
        raise ImageError(
            f"{place}: {int(gaps.sum())} pixels have no value: they are {values[gaps][0]:g}. Fill them. {_WAY_OUT}."
        )


def _number(nodata: object) -> float:
    """The TIFF tag that GDAL writes for missing data is a text."""
    try:
        return float(str(nodata).strip("\0 "))
    except ValueError:
        return np.nan
