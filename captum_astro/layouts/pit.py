"""timm's Pooling-based Vision Transformer: a depthwise convolution of the patches between stages, with class tokens."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, with_prefix
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.convolution import convolution, dense_weight
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import Merging, Stage


@register_layout(PoolingVisionTransformer)
class PiTLayout(Layout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage.

    Raises:
        UnsupportedModelError: If the model does not read its class tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool != "token":
            raise UnsupportedModelError(
                "PoolingVisionTransformer returns all of its class tokens. Create it with global_pool='token'."
            )
        self.num_prefix_tokens = self._model.num_tokens
        self.stages = []
        grid, block, before = self._model.patch_embed.grid_size, 0, None
        for number, part in enumerate(self._model.transformers):
            path = f"transformers.{number}"
            if before is not None:
                merging = _pooling(part.pool, f"{path}.pool", grid, self.num_prefix_tokens)
                self.stages.append(Stage(block, Tap(before, "output"), merging=merging))
                grid = merging.tokens(grid).grid
            self.stages += describe_blocks(part.blocks, f"{path}.blocks", block)
            block, before = block + len(part.blocks), part.blocks[-1]
        self.final_stream = Tap(part.blocks[-1], "output")

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.grid_size
        return int(rows), int(columns)

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[: self.num_prefix_tokens] = 1 / self.num_prefix_tokens  # the logits of both heads are averaged
        return weights


def _pooling(pool: Any, name: str, grid: Grid, prefix: int) -> Merging:
    """A convolution of the patches, and a linear layer for the class tokens: one more source of each new token."""
    patches = convolution(pool.conv, name, None).tokens
    new_rows, new_columns = patches(grid).grid or (0, 0)
    weight = torch.cat([dense_weight(pool.conv), pool.fc.weight], 1)
    bias = torch.cat([pool.fc.bias.expand(prefix, -1), pool.conv.bias.expand(new_rows * new_columns, -1)])
    return Merging(name, partial(_with_prefix, patches=patches, prefix=prefix), (Linear(weight, bias[None]),))


def _with_prefix(grid: Grid, patches: Any, prefix: int) -> TokenMap:
    return with_prefix(patches(grid), prefix)
