"""torchvision's MaxViT: convolutional blocks, then attention in windows and over a dilated grid."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, dilated_map, window_map
from captum_astro.layouts.averaged import AveragedLayout
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout("torchvision.models.maxvit.MaxVit")
class TorchvisionMaxVitLayout(AveragedLayout):
    """Layers are numbered through all blocks. The tokens are those that leave the stem."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        self.stages = []
        number = 0
        for part, block in enumerate(self._model.blocks):
            for index, layer in enumerate(block.layers):
                path, layers = f"blocks.{part}.layers.{index}.layers", layer.layers
                self.stages += _convolutional(layers.MBconv, number, f"{path}.MBconv")
                self.stages += _partitioned(layers.window_attention, number, f"{path}.window_attention")
                self.stages += _partitioned(layers.grid_attention, number, f"{path}.grid_attention")
                number += 1
        self.final_stream = Tap(self._model.blocks[-1], "output", "first")

    def grid(self, height: int, width: int) -> Grid:
        return -(-height // 2), -(-width // 2)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.grid(height, width)
        return 2 * rows, 2 * columns


def _convolutional(block: Any, index: int, path: str) -> list[Stage]:
    """A change of width or resolution by the shortcut, if there is one, and what the convolutions add to it."""
    added = FeedForwardBranch(path, Tap(block.stochastic_depth, "output", "first"), approximate=DEPTHWISE)
    before = Tap(block, channels="first")
    if isinstance(block.proj, nn.Identity):
        return [Stage(index, before, (added,))]
    *pools, project = block.proj
    size, stride, padding = (3, 2, 1) if pools else (1, 1, 0)
    linear = Linear((project.weight.flatten(1) / size**2).repeat(1, size**2), project.bias)
    seen = partial(_under, size=(size, size), stride=(stride, stride), padding=(padding, padding))
    merging = Merging(f"{path}.proj", seen, (linear,))
    return [Stage(index, before, merging=merging), Stage(index, Tap(block.proj, "output", "first"), (added,))]


def _partitioned(layer: Any, index: int, path: str) -> list[Stage]:
    """Attention and a feed-forward layer, both on tokens that are arranged in windows."""
    norm, attn, _ = layer.attn_layer
    windowed = layer.partition_type == "window"
    windows = partial(_windows, size=layer.p) if windowed else partial(_dilated, size=layer.g)

    def in_order(x: torch.Tensor) -> torch.Tensor:
        rows, columns = (side // layer.p for side in layer.grid_size)
        image: torch.Tensor = layer.departition_op(layer.departition_swap(x), layer.p, rows, columns)
        return image.flatten(2).transpose(1, 2)

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.to_qkv.weight.chunk(3)[2]
        return weight.reshape(attn.n_heads, -1, weight.shape[1])

    attention = AttentionBranch(
        f"{path}.attn_layer.1",
        attn,
        (Linear(attn.merge.weight, attn.merge.bias),),
        value_weight,
        reads=Tap(attn, arrange=in_order),
        entering=Tap(norm, "output", arrange=in_order),
        outputs=windows,
        sources=windows,
        windows=1,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp_layer", Tap(layer.mlp_layer, "output", arrange=in_order))
    return [
        Stage(index, Tap(layer, channels="first"), (attention,)),
        Stage(index, Tap(layer.mlp_layer, arrange=in_order), (feed_forward,)),
    ]


def _windows(grid: Grid, size: int) -> TokenMap:
    return window_map(grid, (size, size))


def _dilated(grid: Grid, size: int) -> TokenMap:
    return dilated_map(grid, (size, size))


def _under(grid: Grid, size: Grid, stride: Grid, padding: Grid) -> TokenMap:
    return convolution_map(grid, size, stride, padding)
