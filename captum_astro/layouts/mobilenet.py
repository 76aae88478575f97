"""timm's MobileNetV4 hybrids: convolutional blocks, and attention whose heads share keys and values."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers.attention2d import MultiQueryAttention2d
from timm.models._efficientnet_blocks import MobileAttention, UniversalInvertedResidual
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.mobilenetv5 import MobileNetV5, MobileNetV5Encoder
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout, without_layout
from captum_astro.layouts.convolution import DEPTHWISE, POSITIONAL, convolutional_block, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(MobileNetV3)
class MobileNetLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool.pool_type)
        self.stages = []
        self.stride = 2
        number = 0
        for part, blocks in enumerate(self._model.blocks):
            for index, block in enumerate(blocks):
                path = f"blocks.{part}.{index}"
                if isinstance(block, MobileAttention):
                    self.stages += _attention(block, number, path)
                elif self.stages:
                    self.stages.append(_convolutional(block, number, path))
                else:
                    self.stride *= _stride(block)
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This MobileNet has no attention. The hybrid ones have a layout (mobilenetv4_hybrid_medium); "
                "TokenGradCAM needs none."
            )
        self.final_stream = Tap(block, "output", "first")


for _class in (MobileNetV5, MobileNetV5Encoder):
    without_layout(
        _class,
        "it joins the tokens of two stages before it averages them, so that no single row reads them. TokenGradCAM "
        "explains it; mobilenetv4_hybrid_medium has a layout.",
    )


def _stride(block: nn.Module) -> int:
    strides = [module.stride[0] for module in block.modules() if isinstance(module, nn.Conv2d)]
    return int(torch.tensor(strides).prod())


def _convolutional(block: Any, index: int, path: str) -> Stage:
    stream = Tap(block, channels="first")
    if not (isinstance(block, UniversalInvertedResidual) and block.has_skip):
        return Stage(index, stream, merging=convolutional_block(block, path))
    mixes = any(isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in block.modules())
    output = Tap(block.layer_scale, "output", "first")
    return Stage(index, stream, (FeedForwardBranch(path, output, approximate=DEPTHWISE if mixes else None),))


def _attention(block: Any, index: int, path: str) -> list[Stage]:
    attn, name, entering = block.attn, f"{path}.attn", Tap(block.norm, "output", "first")
    if not block.has_skip:
        raise UnsupportedModelError(f"{path} has attention without a residual add, which no model of timm's has.")
    steps: tuple[Step, ...] = ()
    if not isinstance(block.layer_scale, nn.Identity):
        steps = (Scale(block.layer_scale.gamma.flatten()),)
    branch = (_multi_query if isinstance(attn, MultiQueryAttention2d) else _multi_head)(attn, name, steps, entering)
    stages = []
    if block.conv_cpe_dw is not None:
        positions = Tap(block.conv_cpe_dw, "output", "first")
        added = FeedForwardBranch(f"{path}.conv_cpe_dw", positions, approximate=POSITIONAL)
        stages.append(Stage(index, Tap(block, channels="first"), (added,)))
    return [*stages, Stage(index, Tap(block.norm, channels="first"), (branch,))]


def _multi_query(attn: Any, name: str, after: tuple[Step, ...], entering: Tap) -> AttentionBranch:
    value = attn.value
    if attn.has_query_strides:
        raise UnsupportedModelError(f"{name} has queries of another resolution than its tokens. Set query_strides=1.")
    project = attn.output.proj
    reduced = None
    if attn.kv_stride > 1:
        reduced = normalised_convolution(
            value.down_conv, value.norm, name, entering, Tap(value.norm, "output", "first")
        )
    return AttentionBranch(
        name,
        attn,
        (Linear(project.weight.flatten(1), project.bias), *after),
        lambda: value.proj.weight.flatten(1)[None].expand(attn.num_heads, -1, -1),
        reads=Tap(value.proj, channels="first"),
        entering=entering if reduced is None else None,
        reduced=reduced,
    )


def _multi_head(attn: Any, name: str, after: tuple[Step, ...], entering: Tap) -> AttentionBranch:
    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.qkv.weight.flatten(1)
        if attn.head_first:
            weight = weight.reshape(attn.num_heads, 3, attn.dim_head, -1).transpose(0, 1)
        return weight.reshape(3, attn.num_heads, attn.dim_head, -1)[2]

    steps = (Linear(attn.proj.weight.flatten(1), attn.proj.bias), *after)
    return AttentionBranch(name, attn, steps, value_weight, reads=Tap(attn, channels="first"), entering=entering)
