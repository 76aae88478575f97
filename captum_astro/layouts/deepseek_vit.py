"""timm's DeepSeek encoders and classifiers, with their projector of 3 x 3 patches."""

from __future__ import annotations

from typing import Any, cast

from timm.models.deepseek_vit import DeepseekVitClassifier, DeepseekVitEncoder
from torch import nn

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import Merging
from captum_astro.layouts.vision_language import EncoderLayout, merged_by


@register_layout(DeepseekVitEncoder, DeepseekVitClassifier)
class DeepseekVitLayout(EncoderLayout):
    """The projector pads the grid with zeros; in a cell, the values of one channel are neighbours."""

    def __init__(self, model: nn.Module) -> None:
        encoder: Any = cast(Any, getattr(model, "encoder", model))
        super().__init__(model, encoder.aligner)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        (rows, columns), ratio = self.grid(height, width), self._encoder.patch_embed.feat_ratio()
        return rows * int(ratio), columns * int(ratio)

    def _projected(self, projector: Any, path: str) -> tuple[Merging, Tap]:
        first, size = projector.fc1, projector.downsample_ratio
        weight = first.weight.unflatten(1, (-1, size**2)).transpose(1, 2).flatten(1)
        return merged_by(first, weight, f"{path}aligner", size, Tap(self._encoder.norm, "output"))
