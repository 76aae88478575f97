"""Small maps and images that are stored for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from captum_astro.evaluation.run.cases import Case
from captum_astro.evaluation.run.rows import MapRow

SIDE, IMAGE_SIDE = 56, 224


def kept_map(case: Case, model: str, method: str, explained: str, found: torch.Tensor) -> MapRow:
    """A map of at most 56 x 56, in half precision, scaled to a largest absolute value of 1.

    Args:
        case: The sample.
        model: The model's name.
        method: The method's name.
        explained: ``predicted`` or ``true``.
        found: ``(H, W)``.
    """
    height, width = (min(SIDE, side) for side in found.shape)
    small = F.adaptive_avg_pool2d(found.detach().cpu().double()[None], (height, width))[0]
    largest = small.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    values = (small / largest).numpy().astype("<f2")
    return MapRow(case.number, case.name, model, method, explained, height, width, values.tobytes())


def class_text(index: int, names: Sequence[str]) -> str:
    """A class: its index, and the first of its names if it has any.

    Args:
        index: Its index, which may be none of the model's.
        names: The names of each of the model's classes, joined with commas.

    Example:
        >>> class_text(1, ["tench", "lynx, catamount"]), class_text(0, ["0"]), class_text(7, ["0"])
        ('1 lynx', '0', '7')
    """
    name = names[index].split(",")[0] if index < len(names) else ""
    return str(index) if name in ("", str(index)) else f"{index} {name}"


def kept_image(case: Case, model: str, predicted: str | None = None, true: str | None = None) -> MapRow:
    """The image as the model saw it, at most 224 x 224, as a JPEG.

    Args:
        case: The sample.
        model: The model's name.
        predicted: Its class by the model, as text.
        true: Its true class, as text.
    """
    pixels = (case.pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    known = (case.number, case.name, model, "input", "-")
    return MapRow(*known, image.height, image.width, file.getvalue(), predicted, true)
