"""timm's NesT: attention in the blocks of a grid, which are aggregated by a convolution and max pooling."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.nest import Nest, deblockify
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import convolution, max_pooling
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(Nest)
class NestLayout(AveragedLayout):
    """Layers are numbered consecutively through all levels. The tokens are those of the first level's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, level in enumerate(self._model.levels):
            if not isinstance(level.pool, nn.Identity):
                self.stages += _aggregation(level.pool, number, f"levels.{part}.pool")
            for index, layer in enumerate(level.transformer_encoder):
                self.stages += _layer(layer, number, f"levels.{part}.transformer_encoder.{index}", level.block_size)
                number += 1
        self.final_stream = Tap(layer, "output", arrange=partial(_row_by_row, size=level.block_size))
        self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.global_pool, "output"))

    def grid(self, height: int, width: int) -> Grid:
        return height // int(self._model.patch_size), width // int(self._model.patch_size)


def _aggregation(pool: Any, index: int, path: str) -> list[Stage]:
    """A convolution with its norm, and max pooling; the positions that are added then are not part of the sum."""
    convolved = convolution(pool.conv, f"{path}.conv", pool.norm)
    pooled = max_pooling(pool.pool, f"{path}.pool")
    return [
        Stage(index, Tap(pool, channels="first"), merging=convolved),
        Stage(index, Tap(pool.pool, channels="first"), (), Tap(pool, "output", "first"), pooled),
    ]


def _layer(layer: Any, index: int, path: str, size: int) -> list[Stage]:
    attn, arrange, windows = layer.attn, partial(_row_by_row, size=size), partial(_windows, size=(size, size))
    project = attn.proj.weight.unflatten(1, (-1, attn.num_heads)).transpose(1, 2).flatten(1)  # it reads heads last
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(project, attn.proj.bias),),
        lambda: attn.qkv.weight[2 * len(attn.qkv.weight) // 3 :].reshape(attn.num_heads, -1, attn.qkv.in_features),
        reads=Tap(attn, arrange=arrange),
        entering=Tap(layer.norm1, "output", arrange=arrange),
        outputs=windows,
        sources=windows,
        windows=2,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(layer.drop_path2, "output", arrange=arrange))
    return [
        Stage(index, Tap(layer.norm1, arrange=arrange), (attention,)),
        Stage(index, Tap(layer.norm2, arrange=arrange), (feed_forward,)),
    ]


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)


def _row_by_row(x: torch.Tensor, size: int) -> torch.Tensor:
    """Tokens ``(B, blocks, n, d)`` in the order of the image."""
    tokens: torch.Tensor = deblockify(x, size).flatten(1, 2)
    return tokens
