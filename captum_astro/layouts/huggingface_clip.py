"""The image encoders of Hugging Face's CLIP and SigLIP, and their classifiers."""

from __future__ import annotations

import torch
from torch import nn

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.huggingface import HuggingFaceLayout
from captum_astro.layouts.multihead import multihead_attention
from captum_astro.layouts.readouts import mean_of
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import Pooling

_CLIP = "transformers.models.clip.modeling_clip"
_SIGLIP = "transformers.models.siglip.modeling_siglip"


class _Encoder(HuggingFaceLayout):
    """``embeddings``, ``encoder.layers`` and ``post_layernorm``, possibly in ``vision_model``."""

    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        layers = self.encoder.encoder.layers
        self.stages = describe_blocks(layers, "encoder.layers")
        self.final_stream = Tap(layers[-1], "output")


@register_layout(f"{_CLIP}.CLIPVisionModel")
class HuggingFaceCLIPLayout(_Encoder):
    """CLIP, read at the class token."""

    num_prefix_tokens = 1

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(1))


@register_layout(f"{_CLIP}.CLIPForImageClassification")
class HuggingFaceCLIPClassifierLayout(HuggingFaceCLIPLayout):
    """A classifier that reads the average of the patches."""

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(1, None))


@register_layout(f"{_SIGLIP}.SiglipForImageClassification")
class HuggingFaceSiglipClassifierLayout(_Encoder):
    """A classifier that reads the average of all tokens; the pooling head, if there is one, is not used."""

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(None))


@register_layout(f"{_SIGLIP}.SiglipVisionModel")
class HuggingFaceSiglipLayout(HuggingFaceSiglipClassifierLayout):
    """SigLIP, which pools its tokens by attention."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        head = getattr(self.encoder, "head", None)
        if head is not None:
            branch = multihead_attention(head.attention, "head.attention", Tap(self.encoder.post_layernorm, "output"))
            self.pooling = Pooling(branch, lambda queries: mean_of(queries, slice(None)), Tap(head.layernorm))
