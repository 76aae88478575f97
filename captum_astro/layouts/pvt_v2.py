"""timm's Pyramid Vision Transformer v2: keys reduced by strided convolutions, overlapping patches between stages."""

from __future__ import annotations

from typing import Any, cast

from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.reduced_keys import attention_with_reduced_keys
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import FeedForwardBranch, Stage


@register_layout(PyramidVisionTransformerV2)
class PVTv2Layout(PaddedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool)
        self.stages = []
        block = 0
        for number, part in enumerate(self._model.stages):
            path, down = f"stages.{number}", part.downsample
            if down is not None:
                merging = convolution(down.proj, f"{path}.downsample", down.norm)
                self.stages.append(Stage(block, Tap(down, channels="first"), merging=merging))
            for index, one in enumerate(part.blocks):
                last = index + 1 == len(part.blocks) and number + 1 < len(self._model.stages)
                self.stages += _block(one, block, f"{path}.blocks.{index}", Tap(part.norm) if last else None)
                block += 1
        self.final_stream = Tap(part.blocks[-1], "output")
        self.pooled = (Tap(part.norm, "output"), Tap(self._model.head_drop))


def _block(block: Any, index: int, path: str, summed: Tap | None) -> list[Stage]:
    attn, name = block.attn, f"{path}.attn"
    if attn.pool is not None:
        raise UnsupportedModelError(
            f"{name} averages its keys over a grid of fixed size and applies an activation to them: no linear map "
            f"leads from tokens to keys. Models without linear attention have a layout (pvt_v2_b2, not pvt_v2_b2_li)."
        )
    attention = attention_with_reduced_keys(attn, name, Tap(block.norm1, "output"))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"), approximate=DEPTHWISE)
    return [
        Stage(index, Tap(block.norm1), (attention,)),
        Stage(index, Tap(block.norm2), (feed_forward,), summed),
    ]
