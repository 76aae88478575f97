"""timm's NaFlexVit on ordinary images."""

from __future__ import annotations

from typing import Any

from timm.models.naflexvit import NaFlexVit

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.vision_transformer import VisionTransformerLayout


@register_layout(NaFlexVit)
class NaFlexVitLayout(VisionTransformerLayout):
    """As `VisionTransformerLayout`, for images ``(B, C, H, W)``; the patch embedding is called ``embeds``."""

    @property
    def _patch_embed(self) -> Any:
        return self._model.embeds
