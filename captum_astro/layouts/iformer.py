"""timm's iFormer: convolutional stages, then gated attention with one head beside convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.iformer import ConvBlock, IFormer, RepCPE, SHMABlock
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, POSITIONAL, dense_weight, normalised, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage

_GATED = "a gate multiplies what each query gets, channel by channel; the vectors are measured without it"


@register_layout(IFormer)
class IFormerLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not average its tokens, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool)
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            path = f"stages.{part}"
            if self.stages and not isinstance(stage.downsample, nn.Identity):
                down = stage.downsample
                merging = normalised_convolution(down.c, down.bn, f"{path}.downsample")
                self.stages.append(Stage(number, Tap(down, channels="first"), merging=merging))
            for index, block in enumerate(stage.blocks):
                if not self.stages and isinstance(block, SHMABlock):
                    self.stride = self._model.feature_info[part]["reduction"]
                if self.stages or isinstance(block, SHMABlock):
                    self.stages.append(_block(block, number, f"{path}.blocks.{index}"))
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This iFormer has no attention. Create it with attn_groups=(0, 0, 3, 2); TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.stages, "output", "first")


def _block(block: Any, index: int, path: str) -> Stage:
    residual = block.cpe if isinstance(block, RepCPE) else block.mixer
    steps: tuple[Step, ...] = () if residual.gamma is None else (Scale(residual.gamma.flatten()),)
    stream = Tap(residual, channels="first")
    if isinstance(block, SHMABlock):
        return Stage(index, stream, (_attention(residual, steps, path),))
    approximate = POSITIONAL if isinstance(block, RepCPE) else DEPTHWISE if isinstance(block, ConvBlock) else None
    output = Tap(residual.module, "output", "first")
    return Stage(index, stream, (FeedForwardBranch(path, output, steps, approximate=approximate),))


def _attention(residual: Any, after: tuple[Step, ...], path: str) -> AttentionBranch:
    attn = residual.module
    windows = partial(_windows, size=(attn.window_size,) * 2) if attn.window_size else None
    return AttentionBranch(
        path,
        attn,
        (normalised(dense_weight(attn.proj.c), None, attn.proj.bn), *after),
        None,  # the values are those of a sigmoid
        outputs=windows,
        sources=windows,
        heads=1,
        approximate=_GATED,
        output=Tap(attn, "output", arrange=partial(_added, scale=residual.gamma)),
    )


def _added(x: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    return (x if scale is None else x * scale).flatten(2).transpose(1, 2)


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)
