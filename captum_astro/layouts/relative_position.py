"""timm's Beit and VisionTransformerRelPos, whose attention adds a bias for relative positions."""

from __future__ import annotations

from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.vision_transformer import VisionTransformerLayout


@register_layout(Beit, VisionTransformerRelPos)
class RelativePositionLayout(VisionTransformerLayout):
    """As `VisionTransformerLayout`: the bias is part of the recorded attention."""
