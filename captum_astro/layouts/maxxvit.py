"""timm's MaxViT and CoAtNet: convolutional blocks, and attention in windows, over a dilated grid or over all tokens."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast

import torch
from timm.models import maxxvit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, dilated_map, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Rearrange, Stage

Channels = Literal["first", "last"]
_POOLED = (
    "its queries and keys are averages of four normalised tokens; they are attributed to the average of those four "
    "tokens themselves"
)


@register_layout(maxxvit.MaxxVit)
class MaxxVitLayout(AveragedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those that leave the stem.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, has parallel windows and grids, or pools
            between its stages by anything but the average of 2 x 2 tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            for index, block in enumerate(stage.blocks):
                self.stages += _block(block, number, f"stages.{part}.blocks.{index}")
                number += 1
        self.final_stream = Tap(self._model.stages, "output", "first")

    def grid(self, height: int, width: int) -> Grid:
        return -(-height // 2), -(-width // 2)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.grid(height, width)
        return 2 * rows, 2 * columns


def _block(block: Any, index: int, path: str) -> list[Stage]:
    if isinstance(block, maxxvit.MbConvBlock | maxxvit.ConvNeXtBlock):
        return _convolutional(block, index, path)
    if isinstance(block, maxxvit.TransformerBlock2d):
        return _transformer(block, index, path)
    if not isinstance(block, maxxvit.MaxxVitBlock):
        raise UnsupportedModelError(
            f"{path} is a {type(block).__name__}, whose windows and grid are computed side by side and joined. Models "
            f"that compute them in turn have a layout (maxvit_tiny_rw_256, not maxvit_tiny_pm_256)."
        )
    stages = _convolutional(block.conv, index, f"{path}.conv")
    if block.attn_block is not None:
        stages += _partitioned(block.attn_block, index, f"{path}.attn_block", block.nchw_attn)
    return stages + _partitioned(block.attn_grid, index, f"{path}.attn_grid", block.nchw_attn)


def _convolutional(block: Any, index: int, path: str) -> list[Stage]:
    """The shortcut, if it changes anything, and what the convolutions add to it."""
    stages, stream = _shortcut(block, index, path)
    added = FeedForwardBranch(path, Tap(block.drop_path, "output", "first"), approximate=DEPTHWISE)
    return [*stages, Stage(index, stream, (added,))]


def _transformer(block: Any, index: int, path: str) -> list[Stage]:
    stages, stream = _shortcut(block, index, path)
    attention = _attention(block, f"{path}.attn", None, "first", _POOLED if stages else None)
    return [*stages, Stage(index, stream, (attention,)), _mlp(block, index, path, "first")]


def _partitioned(layer: Any, index: int, path: str, nchw: bool) -> list[Stage]:
    where = _windows if layer.partition_block else _dilated
    channels: Channels = "first" if nchw else "last"
    attention = _attention(layer, f"{path}.attn", partial(where, size=tuple(layer.partition_size)), channels)
    return [Stage(index, Tap(layer.norm1, channels=channels), (attention,)), _mlp(layer, index, path, channels)]


def _mlp(block: Any, index: int, path: str, channels: Channels) -> Stage:
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output", channels))
    return Stage(index, Tap(block.norm2, channels=channels), (added,))


def _attention(
    block: Any, name: str, windows: Rearrange | None, channels: Channels, approximate: str | None = None
) -> AttentionBranch:
    attn = block.attn
    steps: tuple[Step, ...] = (Linear(attn.proj.weight.flatten(1), attn.proj.bias),)
    if not isinstance(block.ls1, nn.Identity):
        steps = (*steps, Scale(block.ls1.gamma))

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.qkv.weight.flatten(1)
        if attn.head_first:  # queries, keys and values of one head after the other
            return weight.reshape(attn.num_heads, 3, attn.dim_head, -1)[:, 2]
        return weight.reshape(3, attn.num_heads, attn.dim_head, -1)[2]

    return AttentionBranch(
        name,
        attn,
        steps,
        value_weight,
        reads=Tap(attn, channels=channels),
        entering=Tap(block.norm1, "output", channels),
        outputs=windows,
        sources=windows,
        approximate=approximate,
    )


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)


def _dilated(grid: Grid, size: Grid) -> TokenMap:
    return dilated_map(grid, size)


def _shortcut(block: Any, index: int, path: str) -> tuple[list[Stage], Tap]:
    """A change of resolution or width by the shortcut, if there is one, and the stream that the block adds to."""
    shortcut, before = block.shortcut, Tap(block, channels="first")
    if isinstance(shortcut, nn.Identity):
        return [], before
    name, size, expand = f"{path}.shortcut", 1, shortcut
    if isinstance(shortcut, maxxvit.Downsample2d):
        pool, expand, size = shortcut.pool, shortcut.expand, 2
        sides = {pool.kernel_size, pool.stride}
        if not isinstance(pool, nn.AvgPool2d) or not sides <= {2, (2, 2)} or pool.padding not in (0, (0, 0)):
            raise UnsupportedModelError(
                f"{name} is pooled by {pool}, where only the average of 2 x 2 tokens is described. Create the model "
                f"with transformer_pool_type='avg2' and conv_pool_type='avg2'."
            )
    if isinstance(expand, nn.Identity):
        first = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
        weight, bias = torch.eye(first.in_channels).to(first.weight), None
    else:
        weight, bias = expand.weight.flatten(1), expand.bias
    linear = Linear((weight / size**2).repeat(1, size**2), bias)
    merging = Merging(name, partial(_cells, size=(size, size)), (linear,))
    return [Stage(index, before, merging=merging)], Tap(shortcut, "output", "first")


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return convolution_map(grid, size, size)
