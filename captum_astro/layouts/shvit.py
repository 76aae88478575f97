"""timm's SHViT: depthwise convolutions, and attention with one head over all tokens in the last stages."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.shvit import PatchMerging, Residual, SHViT
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolutional_block, dense_weight, normalised
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Activation, Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(SHViT)
class SHViTLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool.pool_type)
        self.stages = []
        self.stride = 16
        number = 0
        for part, stage in enumerate(self._model.stages):
            attends = any(not isinstance(block.mixer, nn.Identity) for block in stage.blocks)
            if not isinstance(stage.downsample, nn.Identity):
                if self.stages:
                    for index, layer in enumerate(stage.downsample):
                        self.stages.append(_layer(layer, number, f"stages.{part}.downsample.{index}"))
                else:
                    self.stride *= 2
            for index, block in enumerate(stage.blocks):
                if self.stages or attends:
                    self.stages += _block(block, number, f"stages.{part}.blocks.{index}")
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This SHViT has no attention. Create it with types=('i', 's', 's'); TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.stages, "output", "first")


def _block(block: Any, index: int, path: str) -> list[Stage]:
    stages = [_layer(block.conv, index, f"{path}.conv")]
    if not isinstance(block.mixer, nn.Identity):
        branches = _attention(block.mixer.m, f"{path}.mixer")
        stages.append(Stage(index, Tap(block.mixer, channels="first"), branches))
    return [*stages, _layer(block.ffn, index, f"{path}.ffn")]


def _layer(layer: Any, index: int, path: str) -> Stage:
    """A residual add, or one that was fused with its convolution, or a change of resolution."""
    stream = Tap(layer, channels="first")
    if not isinstance(layer, Residual):
        block = layer.conv2 if isinstance(layer, PatchMerging) else layer
        return Stage(index, stream, merging=convolutional_block(block, path))
    convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    approximate = DEPTHWISE if any(conv.kernel_size != (1, 1) for conv in convs) else None
    return Stage(index, stream, (FeedForwardBranch(path, Tap(layer.m, "output", "first"), approximate=approximate),))


def _attention(attn: Any, name: str) -> tuple[AttentionBranch, FeedForwardBranch]:
    """Of some channels; the projection gets those with the others, all activated, which stay with their token."""
    (activation, last), size = attn.proj, attn.pdim
    project = normalised(dense_weight(last.c), None, last.bn)
    attention = AttentionBranch(
        name,
        attn,
        (Activation(activation, "first", size), Linear(project.weight[:, :size], project.bias)),
        None,  # they read some channels of the tokens only
        heads=1,
    )
    others = torch.cat([torch.zeros_like(project.weight[:, :size]), project.weight[:, size:]], 1)
    return attention, FeedForwardBranch(f"{name}.proj", Tap(activation, "output", "first"), (Linear(others),))
