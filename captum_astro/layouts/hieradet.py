"""timm's HieraDet, the image encoder of SAM 2: attention in windows, max-pooled queries and tokens between stages."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.hieradet_sam2 import HieraDet
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import MAXIMUM
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Rearrange, Stage


@register_layout(HieraDet)
class HieraDetLayout(AveragedLayout):
    """The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.pool_type)
        self.stages = []
        for index, block in enumerate(self._model.blocks):
            self.stages += _block(block, index)
        self.final_stream = Tap(block, "output")

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.proj.stride
        return -(-height // int(rows)), -(-width // int(columns))

    def extent(self, height: int, width: int) -> tuple[int, int]:
        stride, (rows, columns) = self._model.patch_embed.proj.stride, self.grid(height, width)
        return rows * int(stride[0]), columns * int(stride[1])


def _block(block: Any, index: int) -> list[Stage]:
    path, attn, (rows, columns) = f"blocks.{index}", block.attn, block.q_stride or (1, 1)
    steps: tuple[Step, ...] = (Linear(attn.proj.weight, attn.proj.bias),)
    if not isinstance(block.ls1, nn.Identity):
        steps = (*steps, Scale(block.ls1.gamma))
    size = block.window_size if block.is_windowed else None

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.qkv.weight[2 * attn.dim_out :]
        return weight.reshape(attn.num_heads, -1, attn.dim)

    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        steps,
        value_weight,
        entering=Tap(block.norm1, "output"),
        outputs=_windows_of(size and (size[0] // rows, size[1] // columns)),
        sources=_windows_of(size),
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [
        Stage(index, Tap(block.norm1), (attention,), merging=_shortcut(block, path)),
        Stage(index, Tap(block.norm2), (feed_forward,)),
    ]


def _shortcut(block: Any, path: str) -> Merging | None:
    """Where a stage begins: normalised tokens are projected, and the maximum of several is taken if there is a pool."""
    if isinstance(block.proj, nn.Identity):
        return None
    if block.pool is None:
        linear = Linear(block.proj.weight, block.proj.bias)
        return Merging(f"{path}.proj", partial(_cells, size=(1, 1)), (linear,), Tap(block.norm1, "output"))
    cells, entering = partial(_cells, size=tuple(block.q_stride)), Tap(block.proj, "output")
    return Merging(f"{path}.pool", cells, (), entering, maximum=True, approximate=MAXIMUM)


def _windows_of(size: Grid | None) -> Rearrange | None:
    return None if size is None else partial(_windows, size=size)


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return convolution_map(grid, size, size)
