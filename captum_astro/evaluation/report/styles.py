"""One look per method, the same in every table, chart and picture of a report.

Colours: Okabe and Ito, "Color universal design", 2008, without yellow, which is too light on white. Dash patterns and
markers tell methods apart beyond these, and without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "currentColor")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
MARKERS = ("M-4,0A4,4 0 1 0 4,0A4,4 0 1 0 -4,0Z", "M-3.5,-3.5H3.5V3.5H-3.5Z", "M0,-4.5L4.5,3.5H-4.5Z")


@dataclass(frozen=True)
class Style:
    """How a method is drawn everywhere: a colour, a dash pattern and a marker's path."""

    colour: str
    dash: str
    marker: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method; no two are equal up to 84 methods.

    Example:
        >>> drawn = styles([str(i) for i in range(84)])
        >>> len(set(drawn.values()))
        84
    """
    colours, dashes, markers = len(COLOURS), len(DASHES), len(MARKERS)
    return {
        method: Style(
            COLOURS[i % colours],
            DASHES[i // colours % dashes],
            MARKERS[(i + i // (colours * dashes)) % markers],
        )
        for i, method in enumerate(methods)
    }
