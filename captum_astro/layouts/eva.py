"""timm's Eva: EVA, EVA-02, DINOv3 and the other models with rotary positions."""

from __future__ import annotations

from timm.models.eva import Eva

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.vision_transformer import VisionTransformerLayout


@register_layout(Eva)
class EvaLayout(VisionTransformerLayout):
    """As `VisionTransformerLayout`, but a pooling head reads the prefix tokens too."""

    @property
    def _pools_prefix(self) -> bool:
        return self._model.attn_pool is not None
