"""Transformer-MM."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution
from captum_astro.attr._target import Output
from captum_astro.attr._walker import RowWalker
from captum_astro.capture.records import AttentionRecord
from captum_astro.functional.transformer_mm import transformer_mm_update


class TransformerMM(TokenAttribution):
    """Attention times its gradient through the layers: ``U = I + E_h[(dy/dA * A)^+]``, and the read-out row.

    Source: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", ICCV 2021 (arXiv 2103.15679), Eq. 5 and 6; a pooling head is its Eq. 10, without ``I``.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TransformerMM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Chefer et al., ICCV 2021, arXiv 2103.15679"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        start_layer: int = 0,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            start_layer: The first block that counts.
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
            lambda layout: _TransformerMMWalker(),
            output=output,
            layers=slice(start_layer, None),
        )


class _TransformerMMWalker(RowWalker):
    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        assert record.gradient is not None
        return transformer_mm_update(row, record.attention, record.gradient)
