"""The block of MobileViT: attention among the tokens at the same place of their patches, between convolutions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.convolution import CONVOLUTIONAL, convolutional
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch, Merging, Stage

_FUSED = (
    "its last convolution also sees the tokens before its attention; a new token is attributed to what attention gives "
    "at its place"
)


def mobilevit_block(block: Any, index: int, path: str, first: bool) -> list[Stage]:
    """Describe a ``MobileVitBlock``.

    Args:
        block: The block.
        index: Its number.
        path: Its dotted path.
        first: Whether the tokens of the model are those that enter its transformer.
    """
    stages, size = [], tuple(block.patch_size)
    if not first:
        local = convolutional(f"{path}.conv_kxk", _strided(block))
        stages.append(Stage(index, Tap(block, channels="first"), merging=local))
    unfolded = Merging(f"{path}.unfold", partial(_unfold, size=size), shared=True)
    stages.append(Stage(index, Tap(block.conv_1x1, "output", "first"), merging=unfolded))
    arrange = partial(_tokens, places=block.patch_area)
    inside = describe_blocks(block.transformer, f"{path}.transformer")
    stages += [_inside(stage, index, arrange, block.patch_area) for stage in inside]
    rule = CONVOLUTIONAL if block.conv_fusion is None else _FUSED
    folded = Merging(f"{path}.conv_proj", partial(_fold, size=size), shared=True, approximate=rule)
    return [*stages, Stage(index, Tap(block.norm, arrange=arrange), merging=folded)]


def _strided(block: Any) -> Any:
    conv = block.conv_kxk.conv
    return None if conv.stride == (1, 1) else conv


def _inside(stage: Stage, index: int, arrange: Any, places: int) -> Stage:
    """A stage of the transformer, whose samples are the places in the patches of each image."""
    (branch,), groups = stage.branches, partial(_places, places=places)
    if isinstance(branch, AttentionBranch):
        assert branch.entering is not None
        entering = replace(branch.entering, arrange=arrange)
        changed: Any = replace(branch, entering=entering, outputs=groups, sources=groups)
    else:
        changed = replace(branch, output=replace(branch.output, arrange=arrange))
    return Stage(index, replace(stage.stream, arrange=arrange), (changed,))


def _tokens(x: torch.Tensor, places: int) -> torch.Tensor:
    """Tokens ``(B * places, patches, d)``, one place in all patches after the other."""
    return x.reshape(-1, places * x.shape[1], x.shape[2])


def _order(grid: Grid, size: Grid) -> torch.Tensor:
    """The tokens of a grid in that order."""
    if grid[0] % size[0] or grid[1] % size[1]:
        raise UnsupportedModelError(
            f"MobileViT resizes {grid[0]} x {grid[1]} tokens to whole patches of {size[0]} x {size[1]}. Choose images "
            f"whose height and width are multiples of 64."
        )
    cut = torch.arange(grid[0] * grid[1]).reshape(-1, size[0], grid[1] // size[1], size[1])
    return cut.permute(1, 3, 0, 2).flatten()


def _unfold(grid: Grid, size: Grid) -> TokenMap:
    return TokenMap(_order(grid, size)[None, :, None], grid[0] * grid[1], grid, padded=False)


def _fold(grid: Grid, size: Grid) -> TokenMap:
    return TokenMap(_order(grid, size).argsort()[None, :, None], grid[0] * grid[1], grid, padded=False)


def _places(grid: Grid, places: int) -> TokenMap:
    number = grid[0] * grid[1]
    return TokenMap(torch.arange(number).reshape(places, -1, 1), number, padded=False)
