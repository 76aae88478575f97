"""A class token that joins the patches after the first blocks, as in CaiT, ConViT and XCiT."""

from __future__ import annotations

import torch

from captum_astro.functional.token_map import Grid, TokenMap, preceded_map
from captum_astro.layouts.structure import Merging


def joining(token: torch.Tensor) -> Merging:
    """A new token before the patches, which stay as they are; it consists of none of them.

    Args:
        token: The token, ``(1, 1, d)``.
    """
    return Merging("cls_token", _joined, joined=token)


def _joined(grid: Grid) -> TokenMap:
    return preceded_map(grid[0] * grid[1], 1)
