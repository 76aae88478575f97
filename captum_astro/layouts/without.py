"""Model classes whose relevance no row over one grid of tokens carries, and what works instead."""

from __future__ import annotations

from timm.models.coat import CoaT
from timm.models.crossvit import CrossVit

from captum_astro.layouts.base import has_none

has_none(
    CrossVit,
    "it computes two grids of tokens of different sizes and widths side by side, where a row of relevance follows one. "
    "TokenGradCAM explains its blocks, such as 'blocks.0.blocks.0.0'.",
)
has_none(
    CoaT,
    "its factorised attention has no softmax over the tokens that a query sees, and its blocks share their "
    "convolutions. TokenGradCAM explains its blocks, such as 'serial_blocks4.0'.",
)
