"""timm's CPUBone: convolutional stages, then attention on a coarser grid beside convolutions."""

from __future__ import annotations

from typing import Any, cast

from timm.models.cpubone import CPUBone, CPUBoneBlock
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.conv_attention import conv_attention
from captum_astro.layouts.convolution import DEPTHWISE, convolutional_block
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import FeedForwardBranch, Stage


@register_layout(CPUBone)
class CPUBoneLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.pool_type)
        self.stages = []
        number = 0
        for part, blocks in enumerate(self._model.stages):
            for index, block in enumerate(blocks):
                path = f"stages.{part}.{index}"
                if isinstance(block, CPUBoneBlock):
                    if not self.stages:
                        self.stride = self._model.feature_info[part]["reduction"]
                    self.stages += _block(block, number, path)
                elif self.stages:
                    self.stages.append(
                        Stage(number, Tap(block, channels="first"), merging=convolutional_block(block, path))
                    )
                number += 1
        self.final_stream = Tap(self._model.stages, "output", "first")


def _block(block: Any, index: int, path: str) -> list[Stage]:
    (context, mlp), local = block.total[0], block.total[1]
    norm, attn = context.main
    attention = conv_attention(attn, f"{path}.total.0.0", Tap(norm, "output", "first"))
    stages = [Stage(index, Tap(context, channels="first"), (attention,))]
    for part, name, approximate in ((mlp, "total.0.1", None), (local, "total.1", DEPTHWISE)):
        added = FeedForwardBranch(f"{path}.{name}", Tap(part.main, "output", "first"), approximate=approximate)
        stages.append(Stage(index, Tap(part, channels="first"), (added,)))
    return stages
