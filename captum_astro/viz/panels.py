"""Grids of images and maps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from captum_astro.viz.colours import Style
from captum_astro.viz.images import Shown, picture
from captum_astro.viz.maps import Patch
from captum_astro.viz.overlay import WHOLE, Place, overlay, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

_POINTS = 9  # of a title
_LINE = 0.2  # inches of a title's line
_LETTERS = 13  # of a title in an inch
_BAR = 0.9  # inches of a colour bar
_GAP = 0.06  # inches between panels


@dataclass(frozen=True, eq=False)
class Panel:
    """An image, or a map over it.

    Attributes:
        image: As in `overlay`.
        attribution: The map, as in `overlay`; None for the image alone.
        title: The title.
        place: As in `overlay`.
        patch: As in `overlay`.
    """

    image: Shown
    attribution: torch.Tensor | None = None
    title: str | None = None
    place: Place = WHOLE
    patch: Patch | None = None


_NONE = Panel(torch.empty(0, 0, 0))


def compare(
    images: torch.Tensor,
    attributions: Mapping[str, torch.Tensor],
    titles: Sequence[str] | None = None,
    size: float = 2.2,
    columns: int | None = None,
    *,
    patch: Patch | None = None,
    bands: Sequence[int] | None = None,
    **style: Unpack[Style],
) -> Figure:
    """A grid with one row per image: the image, followed by each method's map over it.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        attributions: For each method its name and ``(B, C, H, W)``, ``(B, 1, H, W)`` or ``(B, H, W)``.
        titles: Title of each image.
        size: The longer side of a panel in inches.
        columns: The number of panels per row; by default all panels of an image are in one row.
        patch: As in `overlay`.
        bands: The channels shown as red, green and blue, or one in grey; needed unless there are one or three.
        style: ``cmap``, ``alpha``, ``colorbar`` and ``limits``, as in `Style`.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: As `overlay`.

    Example:
        >>> figure = compare(torch.rand(2, 3, 8, 8), {"noise": torch.rand(2, 3, 8, 8)}, ["a", "b"])
    """
    place, once = Place(bands), columns is None or columns > len(attributions)
    rows = [
        [
            Panel(image, None, None if titles is None else titles[index], place),
            *(
                Panel(image, values[index], name if index == 0 or not once else None, place, patch)
                for name, values in attributions.items()
            ),
        ]
        for index, image in enumerate(images)
    ]
    return drawn(rows, size, columns, **style)


def drawn(rows: Sequence[Sequence[Panel]], size: float, columns: int | None = None, **style: Unpack[Style]) -> Figure:
    """A figure of panels.

    Args:
        rows: For each image its panels.
        size: The longer side of a panel in inches.
        columns: The number of panels per row of the figure.
        style: As in `Style`.
    """
    most = max((len(row) for row in rows), default=1)
    columns = min(columns or most, most)
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    ratios = [[_ratio(panel.image) for panel in line] for line in lines]
    width = size * min(1, max(map(max, ratios), default=1))
    titles = [[_wrapped(panel.title, width) for panel in line] for line in lines]
    above = [_LINE * max(title.count("\n") + 1 for title in each) for each in titles]
    heights = [size * min(1, 1 / min(ratio)) for ratio in ratios]
    beside = [_BAR if style.get("colorbar") and any(panel.attribution is not None for panel in column) else 0
              for column in zip_longest(*lines, fillvalue=_NONE)]  # fmt: skip
    figure, axes = blank(list(zip(above, heights, strict=True)), [(width, bar) for bar in beside])
    for ax in axes.flat:
        ax.set_axis_off()
    for line, each, own in zip(lines, titles, axes, strict=False):
        for panel, title, ax in zip(line, each, own, strict=False):
            if panel.attribution is None:
                show(ax, picture(panel.image, panel.place.bands), panel.place.box)
                ax.set_title(title, parse_math=False)
            else:
                overlay(panel.attribution, panel.image, ax, title, patch=panel.patch, place=panel.place, **style)
            ax.title.set_fontsize(_POINTS)
    return figure


def blank(rows: Sequence[tuple[float, float]], columns: Sequence[tuple[float, float]]) -> tuple[Figure, Any]:
    """A figure with its own canvas, so that pyplot neither displays nor keeps it, and its axes.

    Args:
        rows: The space above the axes of each row, and their height, in inches.
        columns: The width of the axes of each column, and the space beside them.

    Returns:
        The figure, and an array of axes ``(rows, columns)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = sum(width + beside + _GAP for width, beside in columns) + _GAP
    down = sum(height + above + _GAP for above, height in rows) + _GAP
    figure = Figure(figsize=(across, down), dpi=150)
    FigureCanvasAgg(figure)
    axes = np.empty((len(rows), len(columns)), object)
    bottom = down
    for row, (above, height) in enumerate(rows):
        bottom -= above + height + _GAP
        left = _GAP
        for column, (width, beside) in enumerate(columns):
            place = left / across, (bottom + _GAP) / down, width / across, height / down
            axes[row, column] = figure.add_axes(place)
            left += width + beside + _GAP
    return figure, axes


def _wrapped(title: str | None, width: float) -> str:
    """A title in lines that fit above a panel of this width in inches."""
    letters = max(8, int(width * _LETTERS))
    return "\n".join(textwrap.fill(line, letters) for line in (title or "").splitlines())


def _ratio(image: Shown) -> float:
    """Width over height."""
    height, width = image.shape[-2:] if isinstance(image, torch.Tensor) else image.size[::-1]
    return float(width / height) if height else 1.0
