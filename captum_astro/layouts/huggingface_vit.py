"""Hugging Face's ViT, DeiT, ViT-MSN, BEiT, DINOv2 (also with registers) and DINOv3."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.huggingface import HuggingFaceLayout, part
from captum_astro.layouts.readouts import mean_of
from captum_astro.layouts.steps import Tap

_MODELS = "transformers.models"
_PREFIX = ("cls_token", "distillation_token", "register_tokens")


@register_layout(
    f"{_MODELS}.vit.modeling_vit.ViTModel",
    f"{_MODELS}.deit.modeling_deit.DeiTModel",
    f"{_MODELS}.vit_msn.modeling_vit_msn.ViTMSNModel",
    f"{_MODELS}.dinov2.modeling_dinov2.Dinov2Model",
    f"{_MODELS}.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel",
    f"{_MODELS}.dinov3_vit.modeling_dinov3_vit.DINOv3ViTModel",
)
class HuggingFaceViTLayout(HuggingFaceLayout):
    """Models with ``embeddings``, blocks and a last norm, read at the class token: by a classifier, or as features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        blocks = part(self.encoder, "layers", "encoder.layer", "model.layer", "layer")
        self.stages = describe_blocks(blocks, "layers")
        self.final_stream = Tap(part(self.encoder, "layernorm", "norm"))
        tokens = (getattr(self.encoder.embeddings, name, None) for name in _PREFIX)
        self.num_prefix_tokens = sum(token.shape[1] for token in tokens if isinstance(token, torch.Tensor))

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(1))


@register_layout(f"{_MODELS}.deit.modeling_deit.DeiTForImageClassificationWithTeacher")
class HuggingFaceDistilledLayout(HuggingFaceViTLayout):
    """DeiT with two heads, whose logits are averaged: each reads its own token."""

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(2))


@register_layout(f"{_MODELS}.beit.modeling_beit.BeitModel")
class HuggingFaceBeitLayout(HuggingFaceViTLayout):
    """BEiT, read at the class token, or at the average of the patches, which is normalised afterwards."""

    def readout(self, tokens: int) -> torch.Tensor:
        averaged = cast(Any, self.model).config.use_mean_pooling
        return mean_of(tokens, slice(1, None) if averaged else slice(1))


@register_layout(
    f"{_MODELS}.dinov2.modeling_dinov2.Dinov2ForImageClassification",
    f"{_MODELS}.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersForImageClassification",
)
class HuggingFaceDinoClassifierLayout(HuggingFaceViTLayout):
    """DINOv2's classifier reads the class token and the average of the patches side by side: half of the row each."""

    def readout(self, tokens: int) -> torch.Tensor:
        return (mean_of(tokens, slice(1)) + mean_of(tokens, slice(self.num_prefix_tokens, None))) / 2
