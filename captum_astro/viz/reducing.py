"""Photographs reduced to the pixels that a picture has for them, which Matplotlib does slowly and in floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reduce_photographs(figure: Figure, dpi: float) -> None:
    """Give a figure's photographs no more pixels than it shows at a resolution. Their place on the axes is kept.

    Args:
        figure: The figure, which is changed. Its photographs are images of bytes; maps keep their pixels.
        dpi: The dots per inch that it will be saved with.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure(figsize=(2, 2))
        >>> photograph = figure.add_axes((0, 0, 1, 1)).imshow(np.zeros((600, 600, 3), np.uint8))
        >>> reduce_photographs(figure, dpi=50)
        >>> photograph.get_array().shape, list(photograph.get_extent())
        ((100, 100, 3), [-0.5, 599.5, 599.5, -0.5])
    """
    for ax in figure.axes:
        frame = ax.get_window_extent()
        for image in ax.images:
            pixels = image.get_array()
            if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8:
                continue
            height, width = pixels.shape[:2]
            scale = max(frame.width / width, frame.height / height) * dpi / figure.dpi
            if scale < 1:
                extent = image.get_extent()
                size = max(1, round(width * scale)), max(1, round(height * scale))
                image.set_data(np.asarray(Image.fromarray(np.asarray(pixels)).resize(size, reducing_gap=3.0)))
                image.set_extent(extent)
                image.set_interpolation("nearest")  # pixel for pixel
