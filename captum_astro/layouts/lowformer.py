"""timm's LowFormer: convolutional stages, then attention on a coarser grid beside convolutions."""

from __future__ import annotations

from typing import Any, cast

from timm.models.lowformer import LowFormer, LowFormerBlock
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.conv_attention import conv_attention
from captum_astro.layouts.convolution import DEPTHWISE, convolutional_block
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import FeedForwardBranch, Stage


@register_layout(LowFormer)
class LowFormerLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, blocks in enumerate(self._model.stages):
            for index, block in enumerate(blocks):
                path, attends = f"stages.{part}.{index}", _attends(block)
                if not self.stages and attends:
                    self.stride = self._model.feature_info[part]["reduction"]
                if isinstance(block, LowFormerBlock) and (attends or self.stages):
                    self.stages += _block(block, number, path)
                elif self.stages:
                    self.stages.append(
                        Stage(number, Tap(block, channels="first"), merging=convolutional_block(block, path))
                    )
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This LowFormer has no attention, as lowformer_e1 and e2. Those with attention have a layout "
                "(lowformer_b0); TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.stages, "output", "first")


def _attends(block: Any) -> bool:
    return isinstance(block, LowFormerBlock) and not isinstance(block.attn, nn.Identity)


def _block(block: Any, index: int, path: str) -> list[Stage]:
    stages = []
    if _attends(block):
        main, name = block.attn.main, f"{path}.attn"
        normalised = isinstance(main, nn.Sequential)
        attn, entering = (
            (main[1], Tap(main[0], "output", "first")) if normalised else (main, Tap(main, channels="first"))
        )
        stages.append(Stage(index, Tap(block.attn, channels="first"), (conv_attention(attn, name, entering),)))
    if not isinstance(block.mlp, nn.Identity):
        added = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp.main, "output", "first"))
        stages.append(Stage(index, Tap(block.mlp, channels="first"), (added,)))
    local = FeedForwardBranch(f"{path}.local", Tap(block.local.main, "output", "first"), approximate=DEPTHWISE)
    return [*stages, Stage(index, Tap(block.local, channels="first"), (local,))]
