"""timm's Visformer: convolutional blocks, then attention over all tokens in the last stages."""

from __future__ import annotations

from typing import Any, cast

from timm.models.visformer import Visformer
from torch import nn

from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolution, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(Visformer)
class VisformerLayout(PaddedLayout):
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
        for part in (1, 2, 3):
            embed = getattr(self._model, f"patch_embed{part}")
            if self.stages and embed is not None:
                merging = _patches(embed, f"patch_embed{part}")
                merged = Tap(embed, "output", "first")  # before positions are added
                self.stages.append(Stage(number, Tap(embed, channels="first"), (), merged, merging))
            for index, block in enumerate(getattr(self._model, f"stage{part}")):
                if not self.stages and block.attn is not None:
                    self.stride = self._model.feature_info[part - 1]["reduction"]
                if self.stages or block.attn is not None:
                    self.stages += _block(block, number, f"stage{part}.{index}")
                number += 1
        if not self.stages:
            raise UnsupportedModelError(
                "This Visformer has no attention. Create it with attn_stage='011'; TokenGradCAM needs none."
            )
        self.final_stream = Tap(self._model.norm, channels="first")


def _patches(embed: Any, name: str) -> Merging:
    if isinstance(embed.norm, nn.BatchNorm2d):
        return normalised_convolution(embed.proj, embed.norm, name)
    return convolution(embed.proj, name, None if isinstance(embed.norm, nn.Identity) else embed.norm)


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn, stages = block.attn, []
    if attn is not None:
        attention = AttentionBranch(
            f"{path}.attn",
            attn,
            (Linear(attn.proj.weight.flatten(1)),),
            lambda: attn.qkv.weight.flatten(1).reshape(3, attn.num_heads, attn.head_dim, -1)[2],
            reads=Tap(attn, channels="first"),
            entering=Tap(block.norm1, "output", "first"),
        )
        stages.append(Stage(index, Tap(block.norm1, channels="first"), (attention,)))
    approximate = DEPTHWISE if block.mlp.spatial_conv else None
    added = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output", "first"), approximate=approximate)
    return [*stages, Stage(index, Tap(block.norm2, channels="first"), (added,))]
