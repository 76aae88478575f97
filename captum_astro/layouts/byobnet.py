"""timm's ByobNet: MobileViT, BoTNet, HaloNet with attention among convolutions, CLIP's ResNets with a pooling head."""

from __future__ import annotations

from typing import Any, cast

from timm.layers import AttentionPool2d, RotAttentionPool2d
from timm.models.byobnet import ByobNet, SelfAttnBlock
from timm.models.mobilevit import MobileVitBlock, MobileVitV2Block
from torch import nn

from captum_astro.layouts.attention_pool import attention_pooling_2d
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import convolutional_block
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.mobilevit import mobilevit_block
from captum_astro.layouts.self_attention_block import attends, self_attention_block
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import Stage


@register_layout(ByobNet)
class ByobNetLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model pools its tokens otherwise, or has no attention whose map is over tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        head = self._model.head
        if isinstance(head, AttentionPool2d | RotAttentionPool2d):
            self.pooling = attention_pooling_2d(head, "head")
        blocks = [
            (f"stages.{part}.{index}", part, block)
            for part, stage in enumerate(self._model.stages)
            for index, block in enumerate(stage)
        ]
        first = next((i for i, (_, _, block) in enumerate(blocks) if _attends(block)), None)
        if first is None and self.pooling is None:
            raise UnsupportedModelError(_reason(model))
        if self.pooling is None:
            check_average(model, self._model.global_pool)
        self.stages = []
        if first is None:  # the tokens are those that the head pools
            self.stride = self._model.feature_info[-1]["reduction"]
        else:
            self.stride = _reduction(self._model, *blocks[first][1:])
            for number, (path, _, block) in enumerate(blocks[first:], first):
                self.stages += _block(block, number, path, number == first)
        last, number = self._model.final_conv, len(blocks) - 1
        if first is None or not isinstance(last, nn.Identity):
            self.stages.append(
                Stage(number, Tap(last, channels="first"), merging=convolutional_block(last, "final_conv"))
            )
        self.final_stream = Tap(last, "output", "first")


def _attends(block: nn.Module) -> bool:
    return isinstance(block, MobileVitBlock) or (isinstance(block, SelfAttnBlock) and attends(block))


def _reason(model: nn.Module) -> str:
    if any(isinstance(module, MobileVitV2Block) for module in model.modules()):
        return (
            "MobileViT v2 multiplies its tokens by one vector of all tokens: no map leads from token to token. "
            "MobileViT v1 has a layout (mobilevit_s); TokenGradCAM needs none."
        )
    if any(isinstance(module, SelfAttnBlock) for module in model.modules()):
        return (
            "This ByobNet has lambda layers, whose softmax is not over the tokens that a token sees. BoTNet and "
            "HaloNet have a layout (botnet26t_256); TokenGradCAM needs none."
        )
    return (
        "This ByobNet has no attention over tokens. Those with it have a layout (mobilevit_s, botnet26t_256, "
        "resnet50_clip); TokenGradCAM needs none."
    )


def _reduction(model: Any, part: int, block: nn.Module) -> int:
    """Pixels for each token that enters a block."""
    found = next(info["reduction"] for info in model.feature_info if info["stage"] > part)
    shortcut: Any = getattr(block, "shortcut", None)
    stride = shortcut.conv.stride[0] if isinstance(block, SelfAttnBlock) and hasattr(shortcut, "conv") else 1
    return int(found) // int(stride)


def _block(block: nn.Module, index: int, path: str, first: bool) -> list[Stage]:
    if isinstance(block, MobileVitBlock):
        return mobilevit_block(block, index, path, first)
    if isinstance(block, SelfAttnBlock):
        return self_attention_block(block, index, path)
    return [Stage(index, Tap(block, channels="first"), merging=convolutional_block(block, path))]
