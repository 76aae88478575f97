"""timm's Qwen3-VL encoders and classifiers, with their projector of 2 x 2 patches."""

from __future__ import annotations

from typing import Any, cast

from timm.models.qwen3_vit import Qwen3VitClassifier, Qwen3VitEncoder
from torch import nn

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import Merging
from captum_astro.layouts.vision_language import EncoderLayout, merged_by


@register_layout(Qwen3VitEncoder, Qwen3VitClassifier)
class Qwen3VitLayout(EncoderLayout):
    """The projector normalises each patch, and concatenates those of a cell row by row."""

    def __init__(self, model: nn.Module) -> None:
        encoder: Any = cast(Any, getattr(model, "encoder", model))
        super().__init__(model, encoder.merger)

    def _projected(self, projector: Any, path: str) -> tuple[Merging, Tap]:
        entering = Tap(projector.norm, "output")
        return merged_by(projector.fc1, projector.fc1.weight, f"{path}merger", projector.merge_size, entering)
