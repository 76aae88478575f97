"""timm's DaViT: attention in windows and over channels in turn, with positions by convolution."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from timm.models.davit import DaVit, SpatialBlock
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map, window_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import POSITIONAL, convolution
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(DaVit)
class DaViTLayout(PaddedLayout):
    """A block is a pair of layers, over windows and over channels; blocks are numbered through all stages.

    Attention over channels mixes no tokens, once its map of channels is held constant: it is a feed-forward layer.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        block = 0
        for number, part in enumerate(self._model.stages):
            if not isinstance(part.downsample, nn.Identity):
                self.stages.append(_merging(part.downsample, block, f"stages.{number}.downsample"))
            for index, pair in enumerate(part.blocks):
                for name, layer in pair.named_children():
                    self.stages += _layer(layer, block, f"stages.{number}.blocks.{index}.{name}")
                block += 1
        self.final_stream = Tap(layer, "output", "first")


def _layer(layer: Any, index: int, path: str) -> list[Stage]:
    """Positions, attention, positions, feed-forward."""
    if isinstance(layer, SpatialBlock):
        mixing: AttentionBranch | FeedForwardBranch = _windowed(layer, f"{path}.attn")
    else:
        mixing = FeedForwardBranch(f"{path}.attn", Tap(layer.attn, "output"))
    stages = [
        _positions(layer.cpe1, index, f"{path}.cpe1"),
        Stage(index, Tap(layer.norm1), (mixing,)),
        _positions(layer.cpe2, index, f"{path}.cpe2"),
    ]
    if layer.ffn:
        feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(layer.drop_path2, "output"))
        stages.append(Stage(index, Tap(layer.norm2), (feed_forward,)))
    return stages


def _windowed(layer: Any, name: str) -> AttentionBranch:
    attn, windows = layer.attn, partial(_windows, size=tuple(layer.window_size))
    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.qkv.weight[2 * attn.dim :].reshape(attn.num_heads, -1, attn.dim),
        entering=Tap(layer.norm1, "output"),
        outputs=windows,
        sources=windows,
    )


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)


def _positions(convolved: Any, index: int, name: str) -> Stage:
    added = FeedForwardBranch(name, Tap(convolved.act, "output", "first"), approximate=POSITIONAL)
    return Stage(index, Tap(convolved, channels="first"), (added,))


def _merging(downsample: Any, block: int, name: str) -> Stage:
    """A convolution after a norm of each token; one of even size pads the grid to whole patches."""
    merging = convolution(downsample.conv, name, None, Tap(downsample.norm, "output", "first"))
    if downsample.even_k:
        merging = replace(merging, tokens=partial(_patches, size=downsample.conv.kernel_size))
    return Stage(block, Tap(downsample, channels="first"), merging=merging)


def _patches(grid: Grid, size: Grid) -> TokenMap:
    return merge_map(grid, size, columns_first=False)
