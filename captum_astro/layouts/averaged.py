"""Models without prefix tokens, whose final tokens are averaged: most of those with several resolutions."""

from __future__ import annotations

import torch
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError


class AveragedLayout(Layout):
    """The read-out of average pooling, without prefix tokens."""

    num_prefix_tokens = 0

    def readout(self, tokens: int) -> torch.Tensor:
        return torch.full((tokens,), 1 / tokens, dtype=torch.float64)


class PaddedLayout(AveragedLayout):
    """Convolutions of a total stride, 4 by default, that pad: patches of so many pixels, the last ones incomplete."""

    stride: int = 4

    def grid(self, height: int, width: int) -> Grid:
        return -(-height // self.stride), -(-width // self.stride)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.grid(height, width)
        return self.stride * rows, self.stride * columns


def check_average(model: nn.Module, pooling: str) -> None:
    """Check that a model pools its tokens by their average.

    Raises:
        UnsupportedModelError: If it does not.
    """
    if pooling != "avg":
        raise UnsupportedModelError(
            f"{type(model).__name__} pools by {pooling!r}, which no weights over the tokens describe. "
            f"Create it with global_pool='avg'."
        )
