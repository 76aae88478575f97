"""Grad-CAM on an attention map."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution
from captum_astro.attr._target import Output
from captum_astro.attr._walker import LastLayerWalker
from captum_astro.capture.records import AttentionRecord
from captum_astro.functional.attention_grad_cam import attention_grad_cam


class AttentionGradCAM(TokenAttribution):
    """The last layer's attention, each head weighted by its mean gradient over the patches. Not negative.

    The form of Grad-CAM that papers on Vision Transformers take as a baseline (Chefer et al., CVPR 2021). For Grad-CAM
    on the channels of the tokens, see `TokenGradCAM`. With a pooling head, the last layer is that head.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttentionGradCAM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "the Grad-CAM baseline of Chefer et al., CVPR 2021, arXiv 2012.09838"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        relu_attributions: bool = True,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            relu_attributions: Set negative values to 0, as published. A map may then be zero everywhere, which warns.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` gives ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)`` and ``"tokens"`` ``(B, n)``.

        Returns:
            Attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images cannot be explained.
            UnsupportedModelError: If what was captured does not rebuild what the model computed.
        """
        return self._explain(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size,
            attribute_to,
            lambda layout: _AttentionGradCAMWalker(layout.num_prefix_tokens, relu_attributions),
            output=output,
            layers=[-1],
        )


class _AttentionGradCAMWalker(LastLayerWalker):
    def __init__(self, prefix: int, relu: bool) -> None:
        super().__init__()
        self._prefix, self._relu = prefix, relu

    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        assert record.gradient is not None
        return attention_grad_cam(
            row, record.attention, record.gradient, max(0, self._prefix - record.first_key), self._relu
        )
