"""timm's TinyViT: convolutional blocks, then attention in windows with a depthwise convolution in every block."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.tiny_vit import ConvLayer, TinyVit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, normalised_convolution
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(TinyVit)
class TinyViTLayout(PaddedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Between a convolution and its neighbours, activations and projections change every token by itself.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        number, parts = 0, list(self._model.stages)
        for part, stage in enumerate(parts):
            path = f"stages.{part}"
            if not isinstance(stage, ConvLayer):
                self.stages.append(_downsampling(stage.downsample, number, f"{path}.downsample"))
            for index, block in enumerate(stage.blocks):
                last = index + 1 == len(stage.blocks) and part + 1 < len(parts)
                following = parts[part + 1].downsample.conv1 if last else None
                if isinstance(stage, ConvLayer):
                    self.stages.append(_convolutional(block, number, f"{path}.blocks.{index}"))
                else:
                    self.stages += _block(block, number, f"{path}.blocks.{index}", following)
                number += 1
        self.final_stream = Tap(block, "output")


def _downsampling(down: Any, index: int, path: str) -> Stage:
    """A depthwise convolution between two projections of every token."""
    merging = normalised_convolution(down.conv2.conv, down.conv2.bn, f"{path}.conv2")
    return Stage(index, Tap(down.conv2, channels="first"), (), Tap(down.conv2, "output", "first"), merging)


def _convolutional(block: Any, index: int, path: str) -> Stage:
    """The sum is followed by an activation."""
    added = FeedForwardBranch(path, Tap(block.conv3, "output", "first"), approximate=DEPTHWISE)
    return Stage(index, Tap(block, channels="first"), (added,), Tap(block.act3, channels="first"))


def _block(block: Any, index: int, path: str, following: nn.Module | None) -> list[Stage]:
    attn, windows = block.attn, partial(_windows, size=(block.window_size, block.window_size))

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.qkv.weight
        return weight.reshape(attn.num_heads, -1, weight.shape[1])[:, 2 * attn.key_dim :]

    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        value_weight,
        reads=Tap(attn.qkv),
        outputs=windows,
        sources=windows,
    )
    local = normalised_convolution(block.local_conv.conv, block.local_conv.bn, f"{path}.local_conv")
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [
        Stage(index, Tap(block), (attention,)),
        Stage(index, Tap(block.local_conv, channels="first"), merging=local),
        Stage(index, Tap(block.mlp), (feed_forward,), None if following is None else Tap(following, channels="first")),
    ]


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)
