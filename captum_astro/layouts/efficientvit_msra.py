"""timm's EfficientViT of MSRA: depthwise convolutions, and attention in windows whose heads read one another."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from timm.models.efficientvit_msra import EfficientVitMsra
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolutional_block, dense_weight, normalised
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage

# the activation alone could be a factor of each query, but no vector of a later head belongs to one token
_CASCADED = (
    "each head reads what the one before it gives, and an activation stands between the heads and their projection; "
    "every head's map is followed by itself, and the vectors are measured without the activation"
)


@register_layout(EfficientVitMsra)
class EfficientVitMsraLayout(PaddedLayout):
    """The tokens are those that enter the first block; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    stride = 16

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            path, down = f"stages.{part}", stage.downsample
            if not isinstance(down, nn.Identity):
                self.stages += _convolutions(down.res1, number, f"{path}.downsample.res1")
                merging = convolutional_block(down.patchmerge.conv2, f"{path}.downsample.patchmerge")
                self.stages.append(Stage(number, Tap(down.patchmerge, channels="first"), merging=merging))
                self.stages += _convolutions(down.res2, number, f"{path}.downsample.res2")
            for index, block in enumerate(stage.blocks):
                self.stages += _block(block, number, f"{path}.blocks.{index}")
                number += 1
        self.final_stream = Tap(self._model.stages, "output", "first")


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attention = _attention(block.mixer.m, f"{path}.mixer")
    return [
        *_convolutions((block.dw0, block.ffn0), index, f"{path}.dw0", f"{path}.ffn0"),
        Stage(index, Tap(block.mixer, channels="first"), (attention,)),
        *_convolutions((block.dw1, block.ffn1), index, f"{path}.dw1", f"{path}.ffn1"),
    ]


def _convolutions(pair: Any, index: int, name: str, other: str | None = None) -> list[Stage]:
    """A depthwise convolution and a feed-forward layer, each with a residual add."""
    names = (f"{name}.0", f"{name}.1") if other is None else (name, other)
    return [
        Stage(
            index,
            Tap(layer, channels="first"),
            (FeedForwardBranch(path, Tap(layer.m, "output", "first"), approximate=approximate),),
        )
        for layer, path, approximate in zip(pair, names, (DEPTHWISE, None), strict=True)
    ]


def _attention(local: Any, name: str) -> AttentionBranch:
    attn = local.attn
    windows, project = partial(_windows, size=(attn.resolution,) * 2), attn.proj[1]
    return AttentionBranch(
        name,
        attn,
        (normalised(dense_weight(project.conv), None, project.bn),),
        None,  # every head but the first reads more than the tokens
        outputs=windows,
        sources=windows,
        heads=1,
        calls=attn.num_heads,
        approximate=_CASCADED,
        output=Tap(local, "output", "first"),
    )


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)
