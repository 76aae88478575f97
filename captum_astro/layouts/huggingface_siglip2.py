"""The image encoder of Hugging Face's SigLIP 2 on lists of patches (NaFlex), and its classifier."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.huggingface_clip import HuggingFaceSiglipClassifierLayout, HuggingFaceSiglipLayout
from captum_astro.layouts.patch_lists import PatchLists

_LIBRARY = "transformers.models.siglip2.modeling_siglip2"


class _Patches(HuggingFaceSiglipClassifierLayout):
    """The layout of SigLIP, whose input is patches ``(B, n, P * P * C)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        arguments = "pixel_attention_mask", "spatial_shapes"
        channels = cast(Any, self.encoder).config.num_channels
        self.patch_lists = PatchLists(arguments, arguments[0], None, channels)

    def grid(self, height: int, width: int) -> Grid:
        return height, width

    def extent(self, height: int, width: int) -> tuple[int, int]:
        return height, width


@register_layout(f"{_LIBRARY}.Siglip2ForImageClassification")
class HuggingFaceSiglip2ClassifierLayout(_Patches):
    """A classifier that reads the average of all tokens; the pooling head, if there is one, is not used."""


@register_layout(f"{_LIBRARY}.Siglip2VisionModel")
class HuggingFaceSiglip2Layout(_Patches, HuggingFaceSiglipLayout):
    """SigLIP 2, which pools its tokens by attention."""
