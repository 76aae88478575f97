"""Colours of maps: which colour a value has, and how opaque it is over its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, ListedColormap

Limits = float | tuple[float, float]

OPACITY = 0.55  # of a whole map over a grey image, as in the benchmark's report
OUTLIERS = 1  # percentage of a map's strongest values that have full colour
SIGNED_OUTLIERS = 5  # the same for a signed map, whose relevance is in few patches
_ROUNDING = 1e-6  # of the largest value: what a negative value must exceed to count
_STEPS = 256


class Style(TypedDict, total=False):
    """How a map is drawn.

    Attributes:
        cmap: A Matplotlib colour map or its name; by default `colours`.
        alpha: The opacity of the strongest values, from 0 to 1; that of all others is in proportion to them.
        colorbar: Draw a colour bar, which states the limits.
        limits: The value that has full colour, or ``(0, high)`` or ``(-high, high)``; by default the 99th percentile of
            the map, or the 95th of the absolute values of a signed one.
    """

    cmap: str | Colormap | None
    alpha: float
    colorbar: bool
    limits: Limits | None


@dataclass(frozen=True)
class Scale:
    """The values between which a map is coloured: from ``-high`` if it is signed, otherwise from 0.

    Attributes:
        high: The value of full colour.
        signed: Whether negative values are shown.
        reason: Where the limit comes from, in words.
    """

    high: float
    signed: bool
    reason: str

    @property
    def low(self) -> float:
        """The lowest value that has a colour of its own."""
        return -self.high if self.signed else 0.0


def colours(signed: bool) -> Colormap:
    """The colour map: blue over white to red, centred at zero, or viridis from zero. Both suit the colour-blind.

    Args:
        signed: Whether the map has negative values.

    Example:
        >>> from matplotlib.colors import to_hex
        >>> to_hex(colours(signed=True)(1.0))  # evidence for the class is red
        '#ff0000'
    """
    from matplotlib import colormaps

    return colormaps["bwr" if signed else "viridis"]


def scale(values: NDArray[np.float32], limits: Limits | None = None) -> Scale:
    """The scale of a map.

    Args:
        values: The map, any shape.
        limits: As in `Style`.

    Raises:
        ValueError: If the limits are not finite, not symmetric about zero, or hide the map's negative values.

    Example:
        >>> scale(np.array([-4.0, 1.0]), limits=2).low
        -2.0
    """
    largest = float(np.abs(values).max(initial=0))
    negative = bool((values < -_ROUNDING * largest).any())
    if limits is not None:
        low, high = limits if isinstance(limits, tuple) else (-limits if negative else 0.0, limits)
        if not (0 < high < np.inf and low in (0, -high)):
            raise ValueError(f"limits must be a positive number, (0, high) or (-high, high), not {limits!r}.")
        if negative and low == 0:
            raise ValueError(f"The map has negative values, which limits={limits!r} would hide: give {high:g} alone.")
        return Scale(float(high), low < 0, "as chosen")
    percentile = 100 - (SIGNED_OUTLIERS if negative else OUTLIERS)
    high = float(np.percentile(np.abs(values), percentile))
    if high > 0:
        return Scale(high, negative, f"{percentile}th percentile")
    return Scale(largest or 1.0, negative, "largest value")


def see_through(cmap: str | Colormap | None, signed: bool, alpha: float) -> ListedColormap:
    """A colour map whose opacity is in proportion to the strength of the value, and nothing at zero.

    The white in a diverging colour map becomes transparent, so that on white paper it looks as before.

    Args:
        cmap: The opaque colour map or its name; None for `colours`.
        signed: Whether zero is in its middle.
        alpha: The opacity of the strongest values.

    Raises:
        ValueError: If there is no such colour map, or the opacity is not from 0 to 1.

    Example:
        >>> see_through("bwr", signed=True, alpha=0.8)([0.0, 0.5, 1.0]).round(1).tolist()
        [[0.0, 0.0, 1.0, 0.8], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.8]]
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be a number from 0 to 1, not {alpha!r}.")
    if isinstance(cmap, str) and cmap not in colormaps:
        raise ValueError(f"Matplotlib has no colour map {cmap!r}: see matplotlib.colormaps, such as 'viridis'.")
    opaque = colours(signed) if cmap is None else colormaps[cmap] if isinstance(cmap, str) else cmap
    places = np.linspace(0, 1, _STEPS)
    strength = np.abs(2 * places - 1) if signed else places
    shades = opaque(places)
    if signed:
        shades[:, :3] = (1 - (1 - shades[:, :3]) / np.maximum(strength, 1 / _STEPS)[:, None]).clip(0, 1)
    shades[:, 3] = alpha * strength
    return ListedColormap(shades, name=f"{opaque.name}, see-through")
