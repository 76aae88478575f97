"""timm's Next-ViT: convolutional blocks, and in the last ones of each stage attention beside a convolution."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.nextvit import NextTransformerBlock, NextViT
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolutional, normalised, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage

_AVERAGED = "it averages four tokens; the average is attributed to them in equal shares"


@register_layout(NextViT)
class NextViTLayout(PaddedLayout):
    """The tokens are those that enter the first attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or was fused by ``reparameterize``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            for index, block in enumerate(stage.blocks):
                path, attends = f"stages.{part}.blocks.{index}", isinstance(block, NextTransformerBlock)
                if self.stages:
                    self.stages += _patches(block.patch_embed, number, f"{path}.patch_embed")
                elif attends:
                    self.stride = self._model.feature_info[part]["reduction"]
                if attends:
                    self.stages += _transformer(block, number, path)
                elif self.stages:
                    self.stages += _convolutional(block, number, path)
                number += 1
        self.final_stream = Tap(self._model.norm, channels="first")


def _patches(embed: Any, index: int, name: str) -> list[Stage]:
    stream = Tap(embed, channels="first")
    if not isinstance(embed.pool, nn.Identity):
        return [Stage(index, stream, merging=Merging(name, _cells, shared=True, approximate=_AVERAGED))]
    if isinstance(embed.conv, nn.Identity):
        return []
    return [Stage(index, stream, merging=normalised_convolution(embed.conv, embed.norm, name))]


def _convolutional(block: Any, index: int, path: str) -> list[Stage]:
    mixed = FeedForwardBranch(f"{path}.mhca", Tap(block.mhca, "output", "first"), approximate=DEPTHWISE)
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output", "first"))
    return [
        Stage(index, Tap(block.mhca, channels="first"), (mixed,)),
        Stage(index, Tap(block.norm, channels="first"), (added,)),
    ]


def _transformer(block: Any, index: int, path: str) -> list[Stage]:
    """Attention, a convolution of the result that stands beside it, and a feed-forward layer of both."""
    joined = convolutional(f"{path}.mhca")
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output", "first"))
    return [
        Stage(index, Tap(block.norm1, channels="first"), (_attention(block.e_mhsa, f"{path}.e_mhsa"),)),
        Stage(index, Tap(block.projection, channels="first"), merging=joined),
        Stage(index, Tap(block.norm2, channels="first"), (added,)),
    ]


def _attention(attn: Any, name: str) -> AttentionBranch:
    entering, reduced = Tap(attn), None
    if attn.sr is not None:
        if not isinstance(attn.norm, nn.BatchNorm1d):
            raise UnsupportedModelError(f"{name} was fused by reparameterize(). Explain the model before it is fused.")
        each = torch.eye(attn.dim).to(attn.v.weight).repeat(1, attn.N_ratio) / attn.N_ratio
        merged = Tap(attn.norm, "output", arrange=_last)
        reduced = Merging(
            name, partial(_runs, size=attn.N_ratio), (normalised(each, None, attn.norm),), entering, merged
        )
    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.v.weight.reshape(attn.num_heads, attn.head_dim, -1),
        reads=Tap(attn.v),
        entering=entering if reduced is None else None,
        reduced=reduced,
    )


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2)


def _cells(grid: Grid) -> TokenMap:
    return merge_map(grid, columns_first=False)


def _runs(grid: Grid, size: int) -> TokenMap:
    """Keys of as many tokens that follow one another, row by row; the rest is left out."""
    number = grid[0] * grid[1]
    return TokenMap(torch.arange(number - number % size).reshape(1, -1, size), number, padded=False)
