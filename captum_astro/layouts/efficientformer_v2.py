"""timm's EfficientFormerV2: convolutional stages, then attention with talking heads, also where tokens become fewer."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.efficientformer_v2 import EfficientFormerV2
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, spread_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, dense_weight, normalised, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage

# the activation multiplies the sum of both by one factor, and the convolution's part belongs to no single token
_ACTIVATED = (
    "a convolution of its values and an activation stand between its heads and their projection; the vectors are "
    "measured without them"
)
_COARSE = (
    "it is computed on a coarser grid, and an upsampling, a convolution of its values and an activation stand between "
    "its heads and their projection; a token is attributed to the query in whose cell it lies, and the vectors are "
    "measured without them"
)


@register_layout(EfficientFormerV2)
class EfficientFormerV2Layout(PaddedLayout):
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
            path, reduction = f"stages.{part}", self._model.feature_info[part]["reduction"]
            down = stage.downsample
            attends = getattr(down, "attn", None) is not None
            if not self.stages and attends:
                self.stride = reduction // 2
            if not isinstance(down, nn.Identity) and (self.stages or attends):
                self.stages.append(_downsampling(down, number, f"{path}.downsample"))
            for index, block in enumerate(stage.blocks):
                if not self.stages and block.token_mixer is not None:
                    self.stride = reduction
                if self.stages or block.token_mixer is not None:
                    self.stages += _block(block, number, f"{path}.blocks.{index}")
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This EfficientFormerV2 has no attention. Create it with num_vit=2; TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.norm, channels="first")


def _downsampling(down: Any, index: int, path: str) -> Stage:
    """A convolution, and attention that is added to it: from the old tokens to the new ones."""
    merging = normalised_convolution(down.conv.conv, down.conv.bn, f"{path}.conv")
    stream = Tap(down, channels="first")
    if down.attn is None:
        return Stage(index, stream, merging=merging)
    added = Tap(down.attn, "output", "first")
    return Stage(index, stream, (_attention(down.attn, f"{path}.attn", added),), merging=merging)


def _block(block: Any, index: int, path: str) -> list[Stage]:
    stages = []
    if block.token_mixer is not None:
        after: tuple[Step, ...] = () if isinstance(block.ls1, nn.Identity) else (Scale(block.ls1.gamma.flatten()),)
        attention = _attention(block.token_mixer, f"{path}.token_mixer", Tap(block.ls1, "output", "first"), after)
        stages.append(Stage(index, Tap(block, channels="first"), (attention,)))
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.ls2, "output", "first"), approximate=DEPTHWISE)
    return [*stages, Stage(index, Tap(block.mlp, channels="first"), (added,))]


def _attention(attn: Any, name: str, output: Tap, after: tuple[Step, ...] = ()) -> AttentionBranch:
    coarse, talking = getattr(attn, "stride_conv", None), getattr(attn, "talking_head2", None)
    reduced = None
    if coarse is not None:
        reduced = normalised_convolution(coarse.conv, coarse.bn, name, None, Tap(coarse, "output", "first"))

    def value_weight() -> torch.Tensor:
        weight = normalised(dense_weight(attn.v.conv), None, attn.v.bn).weight
        return weight.reshape(attn.num_heads, attn.d, -1)

    return AttentionBranch(
        name,
        attn,
        (normalised(dense_weight(attn.proj.conv), attn.proj.conv.bias, attn.proj.bn), *after),
        value_weight,
        reads=Tap(attn.v, channels="first"),
        outputs=None if coarse is None else partial(_cells, size=coarse.conv.stride),
        reduced=reduced,
        mixed=None if talking is None else Tap(talking, "output"),
        approximate=_ACTIVATED if coarse is None else _COARSE,
        output=output,
    )


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return spread_map(grid, size)
