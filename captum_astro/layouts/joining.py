"""A class token that joins the patches after the first blocks, as in CaiT and ConViT."""

from __future__ import annotations

from functools import partial

import torch

from captum_astro.functional.token_map import Grid, TokenMap, preceded_map
from captum_astro.layouts.structure import Linear, Merging


def joining(token: torch.Tensor, patches: int) -> Merging:
    """A new token before the patches, which stay as they are; it consists of none of them.

    Args:
        token: The token, ``(1, 1, d)``.
        patches: The number of patches.
    """
    bias = torch.cat([token, token.new_zeros(1, patches, token.shape[2])], 1)
    return Merging("cls_token", partial(_joined, tokens=patches), (Linear(torch.eye(token.shape[2]).to(token), bias),))


def _joined(grid: Grid, tokens: int) -> TokenMap:
    return preceded_map(tokens, 1)
