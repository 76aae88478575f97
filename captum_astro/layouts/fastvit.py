"""timm's FastViT, also MobileCLIP's: convolutional stages, then attention over all tokens in the last one or two."""

from __future__ import annotations

from typing import Any, cast

from timm.models.fastvit import AttentionBlock, FastVit, LayerScale2d
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, POSITIONAL, convolutional
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(FastVit)
class FastVitLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.fork_feat:
            raise UnsupportedModelError("FastVit returns features without a head. Create it with fork_feat=False.")
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            path = f"stages.{part}"
            if self.stages:
                self.stages += _entry(stage, number, path)
            for index, block in enumerate(stage.blocks):
                if not self.stages and isinstance(block, AttentionBlock):
                    self.stride = self._model.feature_info[part]["reduction"]
                if self.stages or isinstance(block, AttentionBlock):
                    self.stages += _block(block, number, f"{path}.blocks.{index}")
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This FastVit has no attention, as fastvit_t8, t12 and s12. Those with attention have a layout "
                "(fastvit_sa12); TokenGradCAM needs none."
            )
        last = self._model.final_conv
        self.stages.append(Stage(number, Tap(last, channels="first"), merging=convolutional("final_conv")))
        self.final_stream = Tap(last, "output", "first")


def _entry(stage: Any, index: int, path: str) -> list[Stage]:
    """Between two stages with attention: a change of resolution, and positions."""
    stages = []
    if not isinstance(stage.downsample, nn.Identity):
        large = stage.downsample.proj[0]
        strided = large.large_conv.conv if large.reparam_conv is None else large.reparam_conv
        merging = convolutional(f"{path}.downsample", strided)
        stages.append(Stage(index, Tap(stage.downsample, channels="first"), merging=merging))
    if not isinstance(stage.pos_emb, nn.Identity):
        positions = convolutional(f"{path}.pos_emb", approximate=POSITIONAL)
        stages.append(Stage(index, Tap(stage.pos_emb, channels="first"), merging=positions))
    return stages


def _block(block: Any, index: int, path: str) -> list[Stage]:
    if not isinstance(block, AttentionBlock):
        return [Stage(index, Tap(block, channels="first"), merging=convolutional(path))]
    attn = block.token_mixer
    steps: tuple[Step, ...] = (Linear(attn.proj.weight, attn.proj.bias),)
    if isinstance(block.layer_scale_1, LayerScale2d):
        steps = (*steps, Scale(block.layer_scale_1.gamma.flatten()))
    attention = AttentionBranch(
        f"{path}.token_mixer",
        attn,
        steps,
        lambda: attn.qkv.weight[2 * attn.qkv.in_features :].reshape(attn.num_heads, attn.head_dim, -1),
        reads=Tap(attn.qkv),
        entering=Tap(block.norm, "output", "first"),
    )
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.layer_scale_2, "output", "first"), approximate=DEPTHWISE)
    return [
        Stage(index, Tap(block.norm, channels="first"), (attention,)),
        Stage(index, Tap(block.mlp, channels="first"), (added,)),
    ]
