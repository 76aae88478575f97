"""timm's EfficientFormer: pooling and convolutions, then attention over all tokens in the last blocks."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.efficientformer import EfficientFormer, MetaBlock1d
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(EfficientFormer)
class EfficientFormerLayout(PaddedLayout):
    """The tokens are those that enter the first block with attention; blocks are numbered through all stages.

    Raises:
        UnsupportedModelError: If the model does not average its tokens, or has no attention.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool)
        self.stages = []
        self.stride = self._model.feature_info[-1]["reduction"]
        number = 0
        for part, stage in enumerate(self._model.stages):
            for index, block in enumerate(stage.blocks):
                if isinstance(block, MetaBlock1d):
                    self.stages += _block(block, number, f"stages.{part}.blocks.{index}")
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This EfficientFormer has no attention. Create it with num_vit=1 or more; TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.norm)
        self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.head_drop))


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn = block.token_mixer

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.qkv.weight
        return weight.reshape(attn.num_heads, -1, weight.shape[1])[:, 2 * attn.key_dim :]

    attention = AttentionBranch(
        f"{path}.token_mixer",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), Scale(block.ls1.gamma)),
        value_weight,
        entering=Tap(block.norm1, "output"),
    )
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.ls2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (added,))]
