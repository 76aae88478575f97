"""timm's CAFormer: convolutional blocks in the first stages, attention over all tokens in the last ones."""

from __future__ import annotations

from typing import Any, Literal, cast

from timm.models import metaformer
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(metaformer.MetaFormer)
class MetaFormerLayout(AveragedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        if not any(isinstance(module, metaformer.Attention) for module in model.modules()):
            raise UnsupportedModelError(
                "This MetaFormer has no attention, as PoolFormer and ConvFormer. CAFormer has a layout "
                "(caformer_s18); TokenGradCAM needs none."
            )
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            down = stage.downsample
            if not isinstance(down, nn.Identity):
                entering = Tap(down.norm, "output", "first")
                merging = convolution(down.conv, f"stages.{part}.downsample", None, entering)
                self.stages.append(Stage(number, Tap(down, channels="first"), merging=merging))
            for index, block in enumerate(stage.blocks):
                self.stages += _block(block, number, f"stages.{part}.blocks.{index}", stage.use_nchw)
                number += 1
        self.final_stream = Tap(self._model.stages, "output", "first")

    def grid(self, height: int, width: int) -> Grid:
        return (height + 1) // 4, (width + 1) // 4

    def extent(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.grid(height, width)
        return 4 * rows, 4 * columns


def _block(block: Any, index: int, path: str, first: bool) -> list[Stage]:
    """Two adds, before each of which the stream itself may be scaled."""
    channels: Literal["first", "last"] = "first" if first else "last"
    if isinstance(block.token_mixer, metaformer.Attention):
        mixing: AttentionBranch | FeedForwardBranch = _attention(block, f"{path}.token_mixer")
    else:
        output = Tap(block.layer_scale1, "output", channels)
        mixing = FeedForwardBranch(f"{path}.token_mixer", output, approximate=DEPTHWISE)
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.layer_scale2, "output", channels))
    stages = []
    for number, branch in enumerate((mixing, feed_forward), 1):
        scale = getattr(block, f"res_scale{number}")
        if not isinstance(scale, nn.Identity):
            scaled = Merging(f"{path}.res_scale{number}", _each, (Scale(scale.scale),))
            stages.append(Stage(index, Tap(scale, channels=channels), merging=scaled))
        stages.append(Stage(index, Tap(scale, "output", channels), (branch,)))
    return stages


def _attention(block: Any, name: str) -> AttentionBranch:
    attn = block.token_mixer
    steps: tuple[Step, ...] = (Linear(attn.proj.weight, attn.proj.bias),)
    if not isinstance(block.layer_scale1, nn.Identity):
        steps = (*steps, Scale(block.layer_scale1.scale))
    return AttentionBranch(
        name,
        attn,
        steps,
        lambda: attn.qkv.weight[2 * attn.attention_dim :].reshape(attn.num_heads, attn.head_dim, -1),
        entering=Tap(block.norm1, "output"),
    )


def _each(grid: Grid) -> TokenMap:
    return convolution_map(grid, (1, 1), (1, 1))
