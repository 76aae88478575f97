"""A map as a see-through picture of its own, which a page or a program lays over the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from PIL import Image

from captum_astro.viz.colours import Limits, Scale, scale, see_through
from captum_astro.viz.maps import Patch
from captum_astro.viz.overlay import drawable


class Layer(NamedTuple):
    """A map as a picture.

    Attributes:
        picture: RGBA, in the map's size: more opaque where the map is stronger, up to fully opaque.
        scale: The values that have the first and the last colour.
    """

    picture: Image.Image
    scale: Scale


def layer(attribution: torch.Tensor, *, patch: Patch | None = None, limits: Limits | None = None) -> Layer:
    """The colours that `overlay` gives a map, without the image under them.

    Args:
        attribution: ``(C, H, W)`` or ``(H, W)``.
        patch: As in `overlay`.
        limits: As in `Style`.

    Returns:
        The picture, and the scale of its colours.

    Raises:
        ValueError: If a value is not finite, or the limits are invalid.

    Example:
        >>> picture, scale = layer(torch.tensor([[-1.0, 0.0, 1.0]]), patch=1)
        >>> [picture.getpixel((x, 0)) for x in range(3)], (scale.low, scale.high)
        ([(0, 0, 255, 255), (255, 0, 0, 0), (255, 0, 0, 255)], (-1.0, 1.0))
    """
    values = drawable(attribution, patch)
    found = scale(values, limits)
    places = (values - found.low) / (found.high - found.low)
    return Layer(Image.fromarray(see_through(None, found.signed, 1.0)(places, bytes=True)), found)
