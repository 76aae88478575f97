"""Image files of every format, turned and damaged."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

FORMATS = {"PNG": {}, "TIFF": {}, "GIF": {}, "BMP": {}, "PPM": {}, "JPEG": {"quality": 97, "subsampling": 0}} | {
    name: options
    for name, library, options in (
        ("WEBP", "webp", {"lossless": True, "exact": True}),
        ("JPEG2000", "jpg_2000", {}),
        ("AVIF", "avif", {"quality": 97, "speed": 10, "subsampling": "4:4:4"}),
    )
    if features.check(library)
}
ROTATED = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


class Case(NamedTuple):
    """A picture to be written, and what it shows: ``(H, W, 3)`` from 0 to 255, or ``(H, W)`` of a mask."""

    picture: Image.Image
    shown: np.ndarray
    options: dict[str, Any]
    kept: bool
    turned: int = 1


def written(draw: random.Random, form: str, case: Case) -> tuple[bytes, Case] | None:
    """The file, or None if Pillow does not write it, and the case turned as its EXIF says."""
    options = {**FORMATS[form], **case.options}
    if form in ROTATED and draw.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = turn = draw.choice(list(UPRIGHT))
        options["exif"], case = exif, case._replace(shown=UPRIGHT[turn](case.shown), turned=turn)
    file = io.BytesIO()
    try:
        case.picture.save(file, form, **options)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return file.getvalue(), case


def damaged(draw: random.Random, data: bytes) -> tuple[bytes, bool]:
    """The file, and whether it may show anything: what is cut short must be noticed, a changed pixel cannot be."""
    kind = draw.choice(("whole", "whole", "cut", "flipped", "header", "filled"))
    if kind == "whole":
        return data, False
    place = draw.randrange(len(data))
    if kind == "cut":
        return data[:place], False
    changed = bytearray(data)
    if kind == "filled":
        changed[place : place + 40] = bytes([draw.choice((0, 255))]) * len(changed[place : place + 40])
    for _ in range(draw.randrange(1, 12) if kind != "filled" else 0):
        changed[draw.randrange(min(64, len(data)) if kind == "header" else len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed), True
