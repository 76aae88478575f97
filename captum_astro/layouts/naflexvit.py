"""timm's NaFlexVit, on images and on lists of patches."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.naflexvit import NaFlexVit

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.patch_lists import PatchLists
from captum_astro.layouts.vision_transformer import VisionTransformerLayout


@register_layout(NaFlexVit)
class NaFlexVitLayout(VisionTransformerLayout):
    """As `VisionTransformerLayout`; the patch embedding is called ``embeds``. Patches are ``(B, n, P * P * C)``."""

    def reading(self, inputs: torch.Tensor) -> Layout:
        if inputs.ndim not in (3, 5):
            return self
        if not self._patch_embed.is_linear:
            raise UnsupportedModelError(
                "This NaFlexVit embeds whole images by a convolution, and no lists of patches. Create it with "
                "embed_proj_type='linear', or pass images (B, C, H, W)."
            )
        layout = copy.copy(self)
        layout.patch_lists = PatchLists(
            ("patch_coord", "patch_valid"), "patch_valid", "patch_coord", int(self._model.in_chans)
        )
        return layout

    def grid(self, height: int, width: int) -> Grid:
        return super().grid(height, width) if self.patch_lists is None else (height, width)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        return super().extent(height, width) if self.patch_lists is None else (height, width)

    @property
    def _patch_embed(self) -> Any:
        return self._model.embeds
