"""Grids of images and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from captum_astro.viz.colours import Style
from captum_astro.viz.images import Shown, picture
from captum_astro.viz.maps import Patch
from captum_astro.viz.overlay import WHOLE, Place, overlay, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

_TITLE = 0.25  # inches of a line


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
    each = -(-most // columns)
    ratios = [_ratio(panel.image) for row in rows for panel in row] or [1.0]
    cell = size * min(1, max(ratios)), size * min(1, 1 / min(ratios))
    figure, axes = blank(len(rows) * each, columns, cell)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, row in enumerate(rows):
        for ax, panel in zip(axes[index * each : (index + 1) * each].flat, row, strict=False):
            if panel.attribution is not None:
                overlay(panel.attribution, panel.image, ax, panel.title, patch=panel.patch, place=panel.place, **style)
                continue
            show(ax, picture(panel.image, panel.place.bands), panel.place.box)
            if panel.title is not None:
                ax.set_title(panel.title, parse_math=False)
    return figure


def blank(rows: int, columns: int, cell: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure with its own canvas, so that pyplot neither displays nor keeps it, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = cell
    figure = Figure(figsize=(columns * width, max(1, rows) * (height + _TITLE)), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(max(1, rows), columns, squeeze=False)


def _ratio(image: Shown) -> float:
    """Width over height."""
    height, width = image.shape[-2:] if isinstance(image, torch.Tensor) else image.size[::-1]
    return float(width / height) if height else 1.0
