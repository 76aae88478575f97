"""One map over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from captum_astro.viz.colours import Limits, Style, scale, see_through
from captum_astro.viz.images import Shown, picture
from captum_astro.viz.maps import Patch, pixel_map, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from typing_extensions import Unpack

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Place(NamedTuple):
    """What is shown of an image, and where on it the map lies.

    Attributes:
        bands: The channels shown, as in `captum_astro.viz.images.picture`.
        box: Left, top, right and bottom of the map, in pixels of the image; None for all of it.
    """

    bands: Sequence[int] | None = None
    box: Box | None = None


WHOLE = Place()


def overlay(
    attribution: torch.Tensor,
    image: Shown,
    ax: Axes | None = None,
    title: str | None = None,
    *,
    patch: Patch | None = None,
    place: Place = WHOLE,
    **style: Unpack[Style],
) -> Axes:
    """Draw one attribution over its image, more opaque where it is stronger: the image keeps its colours.

    A map with negative values is blue where it is negative and red where it is positive; any other has the colours of
    viridis.

    Args:
        attribution: ``(C, H, W)`` or ``(H, W)``.
        image: ``(C, H, W)`` in [0, 1], or a PIL image.
        ax: The axes to draw on; a new figure by default.
        title: Title of the panel.
        patch: The map is summed over patches with this side in pixels, or this height and width. By default a map with
            negative values is, over a 14th of its short side. 1 draws every pixel.
        place: The image's bands that are shown, and where on it the map lies. The part is outlined.
        style: ``cmap``, ``alpha``, ``colorbar`` and ``limits``, as in `Style`.

    Returns:
        The axes.

    Raises:
        ValueError: If the attribution and the image differ in size and no box is given, the image cannot be shown, an
            option has an invalid value, or a value of the attribution is not finite.

    Example:
        >>> ax = overlay(torch.rand(3, 8, 8), torch.rand(3, 8, 8), title="noise", cmap="viridis", colorbar=True)
    """
    shown = picture(image, place.bands)
    height, width = shown.shape[:2]
    if place.box is None and attribution.shape[-2:] != (height, width):
        raise ValueError(
            f"The attribution is {tuple(attribution.shape[-2:])}, the image {(height, width)}: use "
            f"attribute_to='pixels' or 'input'."
        )
    values = drawable(attribution, patch)
    ax = ax if ax is not None else _axes()
    show(ax, shown, place.box)
    if values.any():
        paint(ax, values, place.box or (0, 0, width, height), **style)
    else:
        title = f"{title or ''} (all zero)".strip()
    if title is not None:
        ax.set_title(title, parse_math=False)
    return ax


def drawable(attribution: torch.Tensor, patch: Patch | None = None) -> NDArray[np.float32]:
    """The values of a map that are drawn, ``(H, W)``: summed over the channels, and over patches as in `overlay`.

    Raises:
        ValueError: If a value is not finite.
    """
    values = pixel_map(attribution[None])[0].detach().float().cpu()
    if not torch.isfinite(values).all():
        raise ValueError("The attribution has values that are NaN or infinite, which no colour shows.")
    if patch is not None or scale(values.numpy()).signed:
        values = smoothed(values, patch)
    return values.numpy()


def show(ax: Axes, shown: NDArray[np.float32 | np.uint8], box: Box | None = None) -> None:
    """Show an image ``(H, W, 3)``, and outline a part of it."""
    height, width = shown.shape[:2]
    ax.imshow(shown, extent=(0, width, height, 0))
    left, top, right, bottom = box or (0, 0, width, height)
    seen = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if not np.allclose(seen, (0, 0, width, height)):
        left, top, right, bottom = seen
        corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
        ax.plot(*corners, color="black", linewidth=1.4)
        ax.plot(*corners, color="white", linewidth=1.4, linestyle=(0, (3, 3)))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def paint(
    ax: Axes,
    values: NDArray[np.float32],
    box: Box,
    cmap: str | Colormap | None = None,
    alpha: float = 0.8,
    colorbar: bool = False,
    limits: Limits | None = None,
) -> None:
    """Draw a map ``(H, W)`` on a part of some axes, and its colour bar beside them."""
    chosen = scale(values, limits)
    left, top, right, bottom = box
    size = ax.get_xlim(), ax.get_ylim()
    drawn = ax.imshow(
        values,
        cmap=see_through(cmap, chosen.signed, alpha),
        vmin=chosen.low,
        vmax=chosen.high,
        extent=(left, right, bottom, top),
    )
    ax.set(xlim=size[0], ylim=size[1])
    figure = ax.get_figure()
    if not colorbar or figure is None:
        return
    beyond = [bool((values < chosen.low).any()) and chosen.signed, bool((values > chosen.high).any())]
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((beyond[0], beyond[1]), "neither")
    ticks = sorted({chosen.low, 0.0, chosen.high})
    bar = figure.colorbar(drawn, cax=ax.inset_axes((1.03, 0, 0.05, 1)), ticks=ticks, extend=extend)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks], fontsize="x-small")
    bar.set_label(f"limit: {chosen.reason}", fontsize="x-small", labelpad=1)
    bar.outline.set_linewidth(0.4)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)  # in a PDF there would be a line between any two steps


def _axes() -> Axes:
    from captum_astro.viz.panels import blank

    axes: Axes = blank([(0.3, 3.0)], [(3.0, 0.9)])[1][0][0]
    return axes
