"""Grad-CAM on an attention map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.carry import Update, carry_last
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attention_grad_cam import attention_grad_cam
from captum_astro.kinds import FLAG

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AttentionGradCAM(TokenAttribution):
    """The last layer's attention, each head weighted by its mean gradient over the patches. Not negative.

    The form of Grad-CAM that papers on Vision Transformers use as a baseline (Chefer et al., CVPR 2021). For Grad-CAM
    on the channels of the tokens, see `TokenGradCAM`. With a pooling head, the last layer is that head.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttentionGradCAM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "the Grad-CAM baseline of Chefer et al., CVPR 2021, arXiv 2012.09838"
    reads_last = True

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        relu_attributions: bool = True,
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            relu_attributions: Set negative values to 0, as published. The map may then be zero everywhere, with a
                warning.
            layers: The blocks to consider, counted from 0 (negative: from the end); the last of them is read. By
                default all, and a pooling head then counts as the last layer.
        """
        FLAG.check("relu_attributions", relu_attributions)
        update = _AttentionGradCAMUpdate(common.get("layers") is None, relu_attributions)
        return self._explain(inputs, target, update, common, output)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        return carry_last(passed, update)


class _AttentionGradCAMUpdate(Update):
    def __init__(self, reads_pooling: bool, relu: bool) -> None:
        self.reads_pooling, self._relu = reads_pooling, relu

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        images = len(record.residual)
        return attention_grad_cam(row, record.attention, record.gradient, record.patches, images, self._relu)
